//! Rows of the ledgers of cases: disputes that were mediated and incidents that were seen to, all at their end.

use time::{Date, Duration, Month};

use super::{TELEPHONE, person, pick};
use crate::demo::plan::Place;

const CATEGORIES: [(&str, &str); 8] = [
    ("邻里", "相邻排水"),
    ("婚姻家庭", "家庭琐事"),
    ("土地", "承包地边界"),
    ("拖欠工资", "劳务报酬"),
    ("消费", "商品质量"),
    ("物业", "物业服务"),
    ("债务合同", "民间借贷"),
    ("道路交通事故", "轻微事故赔偿"),
];
const CHANNELS: [&str; 4] = ["网格员上报", "群众来访", "12345热线", "群众上报"];

/// One invented case.
pub(super) struct Case<'a> {
    pub(super) place: &'a Place,
    pub(super) index: u64,
    pub(super) total: u64,
    pub(super) year: i32,
    pub(super) today: Date,
}

impl Case<'_> {
    fn received(&self) -> Date {
        let first = Date::from_calendar_date(self.year, Month::January, 4).unwrap_or(self.today);
        let days = self.index * 310 / self.total.max(1);
        first.saturating_add(Duration::days(i64::try_from(days).unwrap_or(0))).min(self.today)
    }

    fn concluded(&self) -> Date {
        let days = 1 + self.index % 20;
        self.received().saturating_add(Duration::days(i64::try_from(days).unwrap_or(1))).min(self.today)
    }

    /// A dispute that was settled, or not.
    pub(super) fn dispute(&self, succeeded: bool) -> Vec<String> {
        let (category, about) = pick(&CATEGORIES, self.index);
        let state = if succeeded { "结案" } else { "办结" };
        let answer = if succeeded { "是" } else { "否" };
        let title = format!("（演示）{about}纠纷{}号", self.index + 1);
        let parties = format!("{}、{}", person(self.index), person(self.index + 3));
        let telephones = format!("{TELEPHONE}、{TELEPHONE}");
        self.row("矛盾纠纷", category, &title, [parties, telephones], [state, "人民调解", answer])
    }

    /// An incident that was seen to.
    pub(super) fn incident(&self) -> Vec<String> {
        let title = format!("（演示）巡查事件{}号", self.index + 1);
        self.row("网格事件", "安全隐患", &title, [String::new(), String::new()], ["结案", "其他", "是"])
    }

    fn row(
        &self,
        kind: &str,
        category: &str,
        title: &str,
        parties: [String; 2],
        end: [&str; 3],
    ) -> Vec<String> {
        let [persons, telephones] = parties;
        let [state, method, succeeded] = end;
        let risk = if self.index.is_multiple_of(9) { "蓝" } else { "绿" };
        vec![
            format!("{}-{:06}", self.year, self.index + 1),
            kind.to_owned(),
            category.to_owned(),
            pick(&CHANNELS, self.index).to_owned(),
            risk.to_owned(),
            self.place.code.to_string(),
            self.received().to_string(),
            title.to_owned(),
            persons,
            telephones,
            state.to_owned(),
            method.to_owned(),
            succeeded.to_owned(),
            self.concluded().to_string(),
        ]
    }
}
