//! Code lists that are kept as data: categories of cases and units of divisions.
//!
//! They are lists, not enums, so that a node carries and shows a code that it does not know. Nothing
//! here may refuse a value. The lists are ours: the standards' own texts could not be read.

/// One entry of a code list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// The code, as stored.
    pub code: &'static str,
    /// What it means, in English.
    pub english: &'static str,
    /// Chinese label.
    pub label: &'static str,
    /// Other words that ledgers use for it.
    pub aliases: &'static [&'static str],
}

const fn code(
    code: &'static str,
    english: &'static str,
    label: &'static str,
    aliases: &'static [&'static str],
) -> Code {
    Code { code, english, label, aliases }
}

/// Categories of cases: values of `Case.category`.
pub static CATEGORIES: &[Code] = &[
    code("marriage_family", "marriage and family", "婚姻家庭", &["婚姻家庭纠纷"]),
    code("neighbours", "neighbours", "邻里", &["邻里纠纷"]),
    code("land", "land", "土地", &["土地纠纷", "山林土地", "山林土地纠纷"]),
    code("labour", "labour", "劳动争议", &["劳动", "劳动纠纷"]),
    code("wages", "wages", "拖欠工资", &["欠薪", "工资", "农民工工资"]),
    code("traffic", "traffic", "道路交通事故", &["交通事故", "道路交通", "交通"]),
    code("medical", "medical", "医疗", &["医疗纠纷", "医患纠纷"]),
    code("consumer", "consumer", "消费", &["消费纠纷", "消费维权"]),
    code("property_management", "property management", "物业", &["物业纠纷"]),
    code("debt_contract", "debt and contract", "债务合同", &["合同纠纷", "债务纠纷", "经济纠纷"]),
    code("environment", "environment", "环境污染", &["环境", "环境保护"]),
    code("demolition", "demolition", "征地拆迁", &["拆迁", "拆迁纠纷"]),
    code("safety_hazard", "safety hazard", "安全隐患", &["安全生产"]),
    code("public_order", "public order", "社会治安", &["治安"]),
    code("other", "other", "其他", &["其他纠纷", "其它"]),
];

/// Units of a division 部门: values of `unit` in a case's lifecycle and steps.
pub static UNITS: &[Code] = &[
    code("division", "the division itself", "本级", &["综治中心", "政法委"]),
    code("police", "police station", "派出所", &["公安"]),
    code("judicial_office", "judicial office", "司法所", &["司法局", "司法"]),
    code("court", "court", "法院", &["法庭", "人民法院"]),
    code("procuratorate", "procuratorate", "检察院", &["人民检察院"]),
    code("petition_office", "petition office", "信访", &["信访办", "信访局"]),
    code("labour", "labour", "人社", &["人社局", "劳动监察"]),
    code("housing", "housing", "住建", &["住建局"]),
    code("market_regulation", "market regulation", "市场监管", &["市场监管局", "市场监管所"]),
    code("health", "health", "卫健", &["卫健局", "卫生健康"]),
    code("civil_affairs", "civil affairs", "民政", &["民政局"]),
    code("urban_management", "urban management", "城管", &["综合执法"]),
    code("emergency", "emergency", "应急", &["应急管理", "应急管理局"]),
    code("other", "other", "其他", &["其它"]),
];

/// The entry that is meant by a code, an English name, a Chinese label or an alias.
pub fn find(list: &'static [Code], text: &str) -> Option<&'static Code> {
    let text = text.trim();
    list.iter().find(|entry| {
        entry.code == text
            || entry.label == text
            || entry.english.eq_ignore_ascii_case(text)
            || entry.aliases.contains(&text)
    })
}
