//! Dimensions and their classes. Classes of enums have the enum's numbers; those of code lists their place in the list.

use guantong_proto::codes::{CATEGORIES, UNITS};
use guantong_proto::v1;

/// The class of what is not given, or has a code that this program does not list.
pub const UNLISTED: u16 = 0;

/// What a count is kept by. The numbers are stored, 1 to 15, and never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Dimension {
    /// Type of a grid.
    GridType = 1,
    /// State of a grid.
    GridState = 2,
    /// Chiefs, full-time and part-time members.
    StaffKind = 3,
    /// A village unit, by the last three digits of its code. Not to be asked for.
    Village = 4,
    /// Who owns a camera.
    Ownership = 5,
    /// Class of a camera's point.
    PointClass = 6,
    /// Functions of a camera: one with several counts in each.
    Function = 7,
    /// The network that a camera came from.
    Network = 8,
    /// Grids, cases, cameras.
    RecordKind = 9,
    /// Dispute or incident.
    CaseKind = 10,
    /// Category of a case.
    Category = 11,
    /// How a case came in.
    Channel = 12,
    /// How grave a case is.
    Risk = 13,
    /// The unit that holds a case, or held it last.
    Unit = 14,
}

/// A class of a dimension.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Class {
    /// Its number in stored counts.
    pub number: u16,
    /// Its name in answers.
    pub name: &'static str,
    /// Chinese label.
    pub label: &'static str,
}

const fn class(number: i32, name: &'static str, label: &'static str) -> Class {
    Class { number: number as u16, name, label }
}

const NOT_GIVEN: Class = class(UNLISTED as i32, "unlisted", "未填或其他代码");

static GRID_TYPES: &[Class] = &[
    class(v1::GridType::Comprehensive as i32, "comprehensive", "综合网格"),
    class(v1::GridType::Dedicated as i32, "dedicated", "专属网格"),
    class(v1::GridType::Micro as i32, "micro", "微网格"),
    NOT_GIVEN,
];
static GRID_STATES: &[Class] = &[
    class(v1::ActiveState::Active as i32, "active", "启用"),
    class(v1::ActiveState::Retired as i32, "retired", "停用"),
];
static STAFF_KINDS: &[Class] = &[
    class(1, "chief", "网格长"),
    class(2, "full_time_member", "专职网格员"),
    class(3, "part_time_member", "兼职网格员"),
];
static OWNERSHIPS: &[Class] = &[
    class(v1::CameraOwnership::Public as i32, "public", "公共"),
    class(v1::CameraOwnership::Social as i32, "social", "社会"),
    NOT_GIVEN,
];
static POINT_CLASSES: &[Class] = &[
    class(v1::PointClass::First as i32, "first", "一类"),
    class(v1::PointClass::Second as i32, "second", "二类"),
    class(v1::PointClass::Third as i32, "third", "三类"),
    class(v1::PointClass::Other as i32, "other", "其他"),
    NOT_GIVEN,
];
static FUNCTIONS: &[Class] = &[
    class(v1::CameraFunction::Face as i32, "face", "人脸"),
    class(v1::CameraFunction::Person as i32, "person", "人员"),
    class(v1::CameraFunction::Vehicle as i32, "vehicle", "车辆"),
    class(v1::CameraFunction::NonMotor as i32, "non_motor", "非机动车"),
    class(v1::CameraFunction::Object as i32, "object", "物品"),
    class(v1::CameraFunction::Other as i32, "other", "其他"),
];
static NETWORKS: &[Class] = &[
    class(v1::SourceNetwork::Xueliang as i32, "xueliang", "雪亮工程"),
    class(v1::SourceNetwork::Tianwang as i32, "tianwang", "天网工程"),
    class(v1::SourceNetwork::Huiyan as i32, "huiyan", "慧眼工程"),
    class(v1::SourceNetwork::Other as i32, "other", "其他"),
    NOT_GIVEN,
];
static RECORD_KINDS: &[Class] =
    &[class(1, "grid", "网格"), class(2, "case", "事件"), class(3, "camera", "视频监控点位")];
static CASE_KINDS: &[Class] = &[
    class(v1::CaseKind::Dispute as i32, "dispute", "矛盾纠纷"),
    class(v1::CaseKind::Incident as i32, "incident", "网格事件"),
    NOT_GIVEN,
];
static CHANNELS: &[Class] = &[
    class(v1::CaseChannel::GridStaff as i32, "grid_staff", "网格员上报"),
    class(v1::CaseChannel::WalkIn as i32, "walk_in", "群众来访"),
    class(v1::CaseChannel::PublicApp as i32, "public_app", "群众上报"),
    class(v1::CaseChannel::Hotline12345 as i32, "hotline_12345", "12345热线"),
    class(v1::CaseChannel::Petition as i32, "petition", "信访"),
    class(v1::CaseChannel::Court as i32, "court", "法院"),
    class(v1::CaseChannel::Procuratorate as i32, "procuratorate", "检察院"),
    class(v1::CaseChannel::Police as i32, "police", "公安"),
    class(v1::CaseChannel::Partner as i32, "partner", "外部平台"),
    NOT_GIVEN,
];
static RISKS: &[Class] = &[
    class(v1::CaseRisk::Red as i32, "red", "红"),
    class(v1::CaseRisk::Yellow as i32, "yellow", "黄"),
    class(v1::CaseRisk::Blue as i32, "blue", "蓝"),
    class(v1::CaseRisk::Green as i32, "green", "绿"),
    NOT_GIVEN,
];

/// The class of a code in a list; `UNLISTED` if the list does not have it.
fn listed(list: &[guantong_proto::codes::Code], code: &[u8]) -> u16 {
    let at = list.iter().position(|entry| entry.code.as_bytes() == code);
    at.map_or(UNLISTED, |at| at as u16 + 1)
}

fn list_classes(list: &'static [guantong_proto::codes::Code]) -> Vec<Class> {
    let classes =
        list.iter().zip(1..).map(|(entry, number)| Class { number, name: entry.code, label: entry.label });
    classes.chain([NOT_GIVEN]).collect()
}

impl Dimension {
    /// All of them.
    pub const ALL: [Dimension; 14] = [
        Dimension::GridType,
        Dimension::GridState,
        Dimension::StaffKind,
        Dimension::Village,
        Dimension::Ownership,
        Dimension::PointClass,
        Dimension::Function,
        Dimension::Network,
        Dimension::RecordKind,
        Dimension::CaseKind,
        Dimension::Category,
        Dimension::Channel,
        Dimension::Risk,
        Dimension::Unit,
    ];

    /// The dimension of a name.
    pub fn named(name: &str) -> Option<Dimension> {
        Dimension::ALL.into_iter().find(|d| d.name() == name && *d != Dimension::Village)
    }

    /// Its name in requests, and its Chinese label.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Dimension::GridType => ("type", "网格类型"),
            Dimension::GridState => ("state", "状态"),
            Dimension::StaffKind => ("staff_kind", "人员类别"),
            Dimension::Village => ("village", "村（社区）"),
            Dimension::Ownership => ("ownership", "权属"),
            Dimension::PointClass => ("class", "点位类别"),
            Dimension::Function => ("function", "功能"),
            Dimension::Network => ("network", "来源网络"),
            Dimension::RecordKind => ("record_kind", "记录种类"),
            Dimension::CaseKind => ("kind", "事件类型"),
            Dimension::Category => ("category", "事件类别"),
            Dimension::Channel => ("channel", "来源渠道"),
            Dimension::Risk => ("risk", "风险等级"),
            Dimension::Unit => ("unit", "承办部门"),
        }
    }

    /// Its name in requests.
    pub const fn name(self) -> &'static str {
        self.words().0
    }

    /// Its Chinese label.
    pub const fn label(self) -> &'static str {
        self.words().1
    }

    /// Its classes, in the order of the contract. Of villages none: they are divisions.
    pub fn classes(self) -> Vec<Class> {
        match self {
            Dimension::GridType => GRID_TYPES.to_vec(),
            Dimension::GridState => GRID_STATES.to_vec(),
            Dimension::StaffKind => STAFF_KINDS.to_vec(),
            Dimension::Village => Vec::new(),
            Dimension::Ownership => OWNERSHIPS.to_vec(),
            Dimension::PointClass => POINT_CLASSES.to_vec(),
            Dimension::Function => FUNCTIONS.to_vec(),
            Dimension::Network => NETWORKS.to_vec(),
            Dimension::RecordKind => RECORD_KINDS.to_vec(),
            Dimension::CaseKind => CASE_KINDS.to_vec(),
            Dimension::Category => list_classes(CATEGORIES),
            Dimension::Channel => CHANNELS.to_vec(),
            Dimension::Risk => RISKS.to_vec(),
            Dimension::Unit => list_classes(UNITS),
        }
    }

    /// The class of an enum's number; `UNLISTED` for one that this program does not know.
    pub fn class_of(self, number: u64) -> u16 {
        let list = match self {
            Dimension::GridType => GRID_TYPES,
            Dimension::GridState => GRID_STATES,
            Dimension::Ownership => OWNERSHIPS,
            Dimension::PointClass => POINT_CLASSES,
            Dimension::Function => FUNCTIONS,
            Dimension::Network => NETWORKS,
            Dimension::CaseKind => CASE_KINDS,
            Dimension::Channel => CHANNELS,
            Dimension::Risk => RISKS,
            _ => &[],
        };
        list.iter().find(|c| u64::from(c.number) == number).map_or(UNLISTED, |c| c.number)
    }

    /// The class of a code of a code list; `UNLISTED` for one that this program does not know.
    pub fn class_of_code(self, code: &[u8]) -> u16 {
        match self {
            Dimension::Category => listed(CATEGORIES, code),
            Dimension::Unit => listed(UNITS, code),
            _ => UNLISTED,
        }
    }
}
