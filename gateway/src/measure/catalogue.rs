//! The measures themselves, in the order in which people are shown them.

use super::{Count, Formula, Measure, Term};

const fn measure(
    (name, label, unit): (&'static str, &'static str, &'static str),
    formula: Formula,
    (meaning, meaning_label): (&'static str, &'static str),
) -> Measure {
    Measure { name, label, unit, formula, meaning, meaning_label }
}

const SOUND: &[Term] = &[(1, Count::Cameras), (-1, Count::CamerasFaulty)];
const CAMERAS: &[Term] = &[(1, Count::Cameras)];

const fn of_cameras(numerator: &'static [Term]) -> Formula {
    let basis = ("registered cameras", "登记点位数");
    Formula::Rate { numerator, denominator: CAMERAS, flow: false, basis }
}

/// Every measure.
pub static MEASURES: &[Measure] = &[
    measure(
        ("grids", "网格数", "个"),
        Formula::Stock(&[(1, Count::Grids)]),
        ("active grids", "启用中的网格"),
    ),
    measure(
        ("grids_registered", "登记网格数", "个"),
        Formula::Stock(&[(1, Count::GridsRegistered)]),
        ("grids, retired ones included", "全部登记网格，含停用"),
    ),
    measure(
        ("staff", "网格人员数", "人"),
        Formula::Stock(&[(1, Count::Staff)]),
        ("chiefs and members of active grids", "启用网格的网格长、专职和兼职网格员"),
    ),
    measure(
        ("villages_covered", "已覆盖村（社区）数", "个"),
        Formula::Stock(&[(1, Count::VillagesCovered)]),
        (
            "village units of the loaded list with at least one active grid; unknown without a list",
            "至少有一个启用网格的村（社区）；未导入村级名录时不计算",
        ),
    ),
    measure(
        ("grid_coverage", "网格覆盖率", "%"),
        Formula::Rate {
            numerator: &[(1, Count::VillagesCovered)],
            denominator: &[(1, Count::Villages)],
            flow: false,
            basis: ("village units of the loaded list", "已导入名录的村（社区）数"),
        },
        (
            "village units with at least one active grid ÷ village units; unknown without a list of villages",
            "至少有一个启用网格的村（社区）÷ 村（社区）总数；未导入村级名录时不计算",
        ),
    ),
    measure(
        ("cases_received", "事件登记数", "件"),
        Formula::Flow(&[(1, Count::Received)]),
        ("cases by the day on which they were received", "按受理日期计的事件"),
    ),
    measure(
        ("cases_accepted", "事件受理数", "件"),
        Formula::Flow(&[(1, Count::Accepted)]),
        (
            "cases by the day on which a holder first accepted them; without that step, the day received",
            "按首次受理步骤日期计；无该步骤的按受理日期",
        ),
    ),
    measure(
        ("cases_concluded", "事件办结数", "件"),
        Formula::Flow(&[(1, Count::Concluded)]),
        ("concluded or verified cases by the day of the conclusion", "办结或结案的事件，按办结日期计"),
    ),
    measure(
        ("cases_succeeded", "调处成功数", "件"),
        Formula::Flow(&[(1, Count::Succeeded)]),
        ("concluded cases that were settled, by the day of the conclusion", "办结且调处成功，按办结日期计"),
    ),
    measure(
        ("cases_escalated", "上报件次", "件次"),
        Formula::Flow(&[(1, Count::Escalated)]),
        ("escalations to a higher tier; a case may have several", "向上级上报的件次"),
    ),
    measure(
        ("cases_returned", "退回件次", "件次"),
        Formula::Flow(&[(1, Count::Returned)]),
        ("returns to whoever sent the case; a case may have several", "退回的件次"),
    ),
    measure(
        ("cases_ended", "事件终结数", "件"),
        Formula::Flow(&[(1, Count::Ended)]),
        ("cases verified, filed or cancelled, by that day", "结案、备案或关闭的事件，按该日计"),
    ),
    measure(
        ("cases_open", "期末未结数", "件"),
        Formula::Balance { came: Count::Received, went: Count::Ended },
        ("received by the end of the period and not ended by then", "期末已登记而未终结的事件"),
    ),
    measure(
        ("cases_turned_overdue", "新增逾期数", "件"),
        Formula::Flow(&[(1, Count::TurnedOverdue)]),
        ("cases not ended by the day due, by the day after it", "期限届满未终结，按期限次日计"),
    ),
    measure(
        ("cases_overdue", "期末逾期未结数", "件"),
        Formula::Balance { came: Count::TurnedOverdue, went: Count::OverdueEnded },
        ("due before the last day of the period and not ended by its end", "期末已过期限而未终结的事件"),
    ),
    measure(
        ("cases_due", "到期应办结数", "件"),
        Formula::Flow(&[(1, Count::Due)]),
        ("cases by the day on which they are due", "按办理期限计的事件"),
    ),
    measure(
        ("success_rate", "调处成功率", "%"),
        Formula::Rate {
            numerator: &[(1, Count::Succeeded)],
            denominator: &[(1, Count::Concluded)],
            flow: true,
            basis: ("concluded in the period", "期内办结数"),
        },
        ("settled ÷ concluded, both in the period", "期内调处成功数 ÷ 期内办结数"),
    ),
    measure(
        ("success_rate_received", "调处成功率（占登记）", "%"),
        Formula::Rate {
            numerator: &[(1, Count::Succeeded)],
            denominator: &[(1, Count::Received)],
            flow: true,
            basis: ("received in the period", "期内登记数"),
        },
        (
            "settled in the period ÷ received in the period; may pass 100 % where older cases were settled",
            "期内调处成功数 ÷ 期内登记数；办结往期事件时可能超过100%",
        ),
    ),
    measure(
        ("on_time_rate", "按期办结率", "%"),
        Formula::Rate {
            numerator: &[(1, Count::DueConcluded)],
            denominator: &[(1, Count::Due)],
            flow: true,
            basis: ("due in the period", "期内到期数"),
        },
        ("concluded by the day due ÷ due in the period", "按期办结数 ÷ 期内到期数"),
    ),
    measure(
        ("cameras", "视频监控点位数", "个"),
        Formula::Stock(CAMERAS),
        ("cameras registered", "登记的点位"),
    ),
    measure(
        ("cameras_online", "在线点位数", "个"),
        Formula::Stock(&[(1, Count::CamerasOnline)]),
        ("cameras last seen on", "最近观测为在线的点位"),
    ),
    measure(
        ("cameras_faulty", "故障点位数", "个"),
        Formula::Stock(&[(1, Count::CamerasFaulty)]),
        ("cameras last seen with a defect or without video", "最近观测为故障或视频丢失的点位"),
    ),
    measure(
        ("cameras_connected", "联网点位数", "个"),
        Formula::Stock(&[(1, Count::CamerasConnected)]),
        ("cameras that are connected", "已联网的点位"),
    ),
    measure(
        ("cameras_filed", "已备案点位数", "个"),
        Formula::Stock(&[(1, Count::CamerasFiled)]),
        ("cameras that are filed", "已备案的点位"),
    ),
    measure(
        ("online_rate", "在线率", "%"),
        of_cameras(&[(1, Count::CamerasOnline)]),
        ("last seen on ÷ registered", "在线点位数 ÷ 登记点位数"),
    ),
    measure(
        ("sound_rate", "完好率", "%"),
        of_cameras(SOUND),
        ("(registered − defect − video lost) ÷ registered", "（登记 − 故障 − 视频丢失）÷ 登记点位数"),
    ),
    measure(
        ("connected_rate", "联网率", "%"),
        of_cameras(&[(1, Count::CamerasConnected)]),
        ("connected ÷ registered", "联网点位数 ÷ 登记点位数"),
    ),
    measure(
        ("filing_rate", "备案率", "%"),
        Formula::Rate {
            numerator: &[(1, Count::CamerasFiled)],
            denominator: &[(1, Count::Cameras), (-1, Count::CamerasExempt)],
            flow: false,
            basis: ("registered cameras that must be filed", "应备案点位数（登记 − 无需备案）"),
        },
        ("filed ÷ registered without those exempt", "已备案点位数 ÷（登记 − 无需备案）"),
    ),
    measure(
        ("records", "建档数", "条"),
        Formula::Stock(&[(1, Count::Records)]),
        ("grids, cases and cameras held", "网格、事件、点位的档案数"),
    ),
    measure(
        ("complete_record_rate", "建档合格率", "%"),
        Formula::Rate {
            numerator: &[(1, Count::RecordsComplete)],
            denominator: &[(1, Count::Records)],
            flow: false,
            basis: ("records held", "建档数"),
        },
        ("records whose every required field is present ÷ records", "必填项齐全的档案 ÷ 档案数"),
    ),
];
