//! Ledgers as offices keep them, made so that they add up to what was published. The same figures give the same files.
//!
//! Everything in them is invented, and looks it: names of persons are numbered like examples in a textbook, telephone
//! numbers are zeros, and all places lie on one grid of coordinates around the middle of the country.

mod case;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use guantong_gateway::division::Division;
use time::Date;

use super::plan::{Place, Village};
use super::targets::{Class, Counts, Target, apportion, evenly};
use case::Case;

const GRID_HEADERS: [&str; 13] = [
    "网格编码",
    "所属区划",
    "网格名称",
    "网格类型",
    "网格状态",
    "启用日期",
    "户数",
    "人口数",
    "网格长人数",
    "专职网格员人数",
    "兼职网格员人数",
    "网格长",
    "联系电话",
];
const CAMERA_HEADERS: [&str; 17] = [
    "设备编码",
    "所属区划",
    "权属类型",
    "点位类别",
    "功能类型",
    "所属网络",
    "点位名称",
    "安装地址",
    "经度",
    "纬度",
    "管理单位",
    "维护单位",
    "安装日期",
    "录像保存天数",
    "联网",
    "设备状态",
    "检测时间",
];
const CASE_HEADERS: [&str; 14] = [
    "编号",
    "事件类型",
    "事件类别",
    "来源渠道",
    "风险等级",
    "发生地区划",
    "受理日期",
    "标题",
    "当事人",
    "当事人电话",
    "状态",
    "调解方式",
    "是否成功",
    "办结日期",
];
const PERSONS: [&str; 8] = ["张甲", "李乙", "王丙", "赵丁", "刘戊", "陈己", "杨庚", "黄辛"];
const TELEPHONE: &str = "000-00000000";
/// Serial numbers within a village's or township's code.
const GRIDS_PER_PLACE_MAX: u64 = 999;
/// Serial numbers of devices within a county's code.
const CAMERAS_PER_COUNTY_MAX: u64 = 999_999;
/// Where the first camera stands, and how many degrees apart they are: more than 10 metres.
const FIRST_PLACE: (f64, f64) = (103.0, 34.0);
const SPACING: f64 = 0.0005;
const CAMERAS_PER_LINE: u64 = 1_000;

/// A ledger in a file.
#[derive(Clone, Debug)]
pub(super) struct LedgerFile {
    /// Whose office keeps it.
    pub(super) division: Division,
    /// Kind of its rows, singular.
    pub(super) kind: &'static str,
    /// What it is called.
    pub(super) source: &'static str,
    pub(super) path: PathBuf,
    pub(super) rows: u64,
}

/// Which office's ledger a row goes to: division, kind, source.
type Office = (Division, &'static str, &'static str);

/// Ledgers in the making.
#[derive(Debug, Default)]
pub(super) struct Ledgers {
    sheets: BTreeMap<Office, Vec<Vec<String>>>,
    /// Devices so far in each county, by the first six digits.
    devices: BTreeMap<u64, u64>,
    cameras: u64,
}

impl Ledgers {
    /// Adds what a target asks for. `today` is the last day that a case may have.
    pub(super) fn add(&mut self, target: &Target, today: Date) -> Result<()> {
        self.grids(target)?;
        self.cameras(target)?;
        self.disputes(target, today);
        self.incidents(target, today);
        Ok(())
    }

    fn row(&mut self, office: Office, cells: Vec<String>) {
        self.sheets.entry(office).or_default().push(cells);
    }

    fn grids(&mut self, target: &Target) -> Result<()> {
        let counts = &target.counts;
        let weights: Vec<u64> = target.places.iter().map(|place| place.weight).collect();
        let mut index = 0;
        for (place, count) in target.places.iter().zip(apportion(counts.of(Class::Grids), &weights)) {
            if count > GRIDS_PER_PLACE_MAX {
                bail!(
                    "{} would get {count} grids, but codes have room for {GRIDS_PER_PLACE_MAX}",
                    place.code
                );
            }
            for serial in 1..=count {
                self.grid(counts, place, serial, index);
                index += 1;
            }
        }
        Ok(())
    }

    fn grid(&mut self, counts: &Counts, place: &Place, serial: u64, index: u64) {
        let all = counts.of(Class::Grids);
        let dedicated = evenly(counts.of(Class::Dedicated), index, all) > 0;
        let sort = match dedicated {
            true => "专属网格",
            // The others in their own order: comprehensive ones first, micro ones after them.
            false
                if index - up_to(counts.of(Class::Dedicated), index, all)
                    < counts.of(Class::Comprehensive) =>
            {
                "综合网格"
            }
            false => "微网格",
        };
        let members = evenly(counts.of(Class::Members), index, all);
        let households = 60 + index * 7 % 90;
        let cells = [
            format!("{}{serial:03}", place.code),
            place.code.to_string(),
            format!("{}第{serial}网格", place.name),
            sort.to_owned(),
            "启用".to_owned(),
            "2022-01-01".to_owned(),
            households.to_string(),
            (households * 3).to_string(),
            evenly(counts.of(Class::Chiefs), index, all).to_string(),
            members.div_ceil(2).to_string(),
            (members / 2).to_string(),
            person(index),
            TELEPHONE.to_owned(),
        ];
        self.row((place.township, "grid", "grid-office"), cells.into());
    }

    fn cameras(&mut self, target: &Target) -> Result<()> {
        let counts = &target.counts;
        let weights: Vec<u64> = target.places.iter().map(|place| place.weight).collect();
        for (public, total) in [(true, counts.of(Class::Public)), (false, counts.of(Class::Social))] {
            let traits = Traits::of(counts, public);
            let mut index = 0;
            for (place, count) in target.places.iter().zip(apportion(total, &weights)) {
                for _ in 0..count {
                    self.camera(target, place, public, &traits, index)?;
                    index += 1;
                }
            }
        }
        Ok(())
    }

    fn camera(
        &mut self,
        target: &Target,
        place: &Place,
        public: bool,
        traits: &Traits,
        index: u64,
    ) -> Result<()> {
        let county = place.code.code() / 1_000_000;
        let serial = self.devices.entry(county).or_default();
        *serial += 1;
        if *serial > CAMERAS_PER_COUNTY_MAX {
            bail!("{county} would get more cameras than codes have room for");
        }
        // Industry 00: roads and public places; 05: others.
        let device_id = format!("{county}00{}1320{serial:06}", if public { "00" } else { "05" });
        let at = self.cameras;
        self.cameras += 1;
        let longitude = FIRST_PLACE.0 + (at % CAMERAS_PER_LINE) as f64 * SPACING;
        let latitude = FIRST_PLACE.1 + (at / CAMERAS_PER_LINE) as f64 * SPACING;
        let year = if traits.new.at(index) { target.camera_year } else { target.camera_year - 2 };
        let cells = [
            device_id,
            place.code.to_string(),
            if public { "公共" } else { "社会" }.to_owned(),
            "三类".to_owned(),
            traits.functions(index),
            if traits.built.at(index) { "雪亮工程" } else { "天网工程" }.to_owned(),
            format!("{}演示点位{}", place.name, index + 1),
            format!("{}演示路{}号", place.name, index % 200 + 1),
            format!("{longitude:.4}"),
            format!("{latitude:.4}"),
            if public { "演示管理单位" } else { "演示商户" }.to_owned(),
            "演示维护单位".to_owned(),
            format!("{year}-06-01"),
            "30".to_owned(),
            if traits.connected.at(index) { "是" } else { "否" }.to_owned(),
            if index % 40 == 39 { "离线" } else { "在线" }.to_owned(),
            format!("{}-11-15 08:00:00", target.camera_year.min(2025)),
        ];
        let office = match public {
            true => (place.code.county(), "camera", "police"),
            false => (place.township, "camera", "shops"),
        };
        self.row(office, cells.into());
        Ok(())
    }

    fn disputes(&mut self, target: &Target, today: Date) {
        let counts = &target.counts;
        let (rural, urban): (Vec<&Place>, Vec<&Place>) =
            target.places.iter().partition(|place| place.is_rural());
        let in_towns = match (rural.is_empty(), urban.is_empty()) {
            (true, _) => 0,
            (_, true) => counts.of(Class::Disputes),
            _ => counts.of(Class::Rural).min(counts.of(Class::Disputes)),
        };
        let mut index = 0;
        for (places, total) in [(rural, in_towns), (urban, counts.of(Class::Disputes) - in_towns)] {
            let weights: Vec<u64> = places.iter().map(|place| place.weight).collect();
            for (place, count) in places.into_iter().zip(apportion(total, &weights)) {
                for _ in 0..count {
                    let succeeded =
                        evenly(counts.of(Class::Succeeded), index, counts.of(Class::Disputes)) > 0;
                    let case = Case {
                        place,
                        index,
                        total: counts.of(Class::Disputes),
                        year: target.case_year,
                        today,
                    };
                    self.row((place.township, "case", "mediation"), case.dispute(succeeded));
                    index += 1;
                }
            }
        }
    }

    fn incidents(&mut self, target: &Target, today: Date) {
        let total = target.counts.of(Class::Incidents);
        let weights: Vec<u64> = target.places.iter().map(|place| place.weight).collect();
        let mut index = 0;
        for (place, count) in target.places.iter().zip(apportion(total, &weights)) {
            for _ in 0..count {
                let case = Case { place, index, total, year: target.case_year, today };
                self.row((place.township, "case", "patrol"), case.incident());
                index += 1;
            }
        }
    }

    /// Adds a ledger of incidents that no figure knows of, for a transfer to be disturbed.
    pub(super) fn add_patrol(&mut self, place: &Place, count: u64, today: Date) {
        for index in 0..count {
            let case = Case { place, index, total: count, year: today.year() - 1, today };
            self.row((place.township, "case", "night-patrol"), case.incident());
        }
    }

    /// Writes a file for each office. Those of counties are in GB18030, as many still are.
    pub(super) fn write(self, dir: &Path) -> Result<Vec<LedgerFile>> {
        fs::create_dir_all(dir)?;
        let mut files = Vec::new();
        for ((division, kind, source), rows) in self.sheets {
            let headers: &[&str] = match kind {
                "grid" => &GRID_HEADERS,
                "camera" => &CAMERA_HEADERS,
                _ => &CASE_HEADERS,
            };
            let path = dir.join(format!("{division}-{source}.csv"));
            let mut bytes = table(headers, &rows)?;
            if source == "police" {
                let text = String::from_utf8(bytes).context("tables are written in UTF-8")?;
                bytes = encoding_rs::GB18030.encode(&text).0.into_owned();
            }
            fs::write(&path, bytes)?;
            files.push(LedgerFile { division, kind, source, path, rows: rows.len() as u64 });
        }
        Ok(files)
    }
}

/// Writes the list of villages.
pub(super) fn write_villages(path: &Path, villages: &[Village]) -> Result<()> {
    let rows: Vec<Vec<String>> = villages.iter().map(|v| vec![v.code.to_string(), v.name.clone()]).collect();
    Ok(fs::write(path, table(&["区划代码", "区划名称"], &rows)?)?)
}

fn table(headers: &[&str], rows: &[Vec<String>]) -> Result<Vec<u8>> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(headers)?;
    for row in rows {
        csv.write_record(row)?;
    }
    Ok(csv.into_inner()?)
}

/// So many of all, spread evenly.
#[derive(Clone, Copy, Debug)]
struct Share {
    part: u64,
    whole: u64,
}

impl Share {
    fn at(self, index: u64) -> bool {
        evenly(self.part, index, self.whole) > 0
    }
}

/// What public or social cameras have; public ones first.
#[derive(Debug)]
struct Traits {
    face: Share,
    vehicle: Share,
    connected: Share,
    new: Share,
    built: Share,
}

impl Traits {
    fn of(counts: &Counts, public: bool) -> Traits {
        let share = |count: u64| {
            let first = count.min(counts.of(Class::Public));
            match public {
                true => Share { part: first, whole: counts.of(Class::Public) },
                false => Share {
                    part: (count - first).min(counts.of(Class::Social)),
                    whole: counts.of(Class::Social),
                },
            }
        };
        Traits {
            face: share(counts.of(Class::Face)),
            vehicle: share(counts.of(Class::Vehicle)),
            connected: share(counts.of(Class::Connected)),
            new: share(counts.of(Class::New)),
            built: share(counts.of(Class::Built)),
        }
    }

    fn functions(&self, index: u64) -> String {
        let installed = [(self.face, "人脸"), (self.vehicle, "车辆")];
        let installed: Vec<&str> =
            installed.iter().filter(|(share, _)| share.at(index)).map(|(_, name)| *name).collect();
        installed.join("、")
    }
}

fn person(index: u64) -> String {
    pick(&PERSONS, index).to_owned()
}

fn pick<T: Copy + Default>(list: &[T], index: u64) -> T {
    let at = usize::try_from(index % list.len().max(1) as u64).unwrap_or(0);
    list.get(at).copied().unwrap_or_default()
}

/// How many of `part` fell to the places before the `index`th of `whole`.
fn up_to(part: u64, index: u64, whole: u64) -> u64 {
    u64::try_from((u128::from(part) * u128::from(index)).checked_div(u128::from(whole)).unwrap_or(0))
        .unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Cursor;

    use time::Month;

    use super::super::figures::{EMBEDDED, Figures};
    use super::super::plan::{EMBEDDED_VILLAGES, Plan};
    use super::super::targets::targets;
    use super::*;
    use crate::ledger::{Crs, Ledger, Options, Outcome};

    fn ledgers(division: &str) -> (tempfile::TempDir, Vec<LedgerFile>) {
        let division = Division::parse(division).unwrap();
        let plan = Plan::new(division, true, EMBEDDED_VILLAGES).unwrap();
        let figures = Figures::parse(EMBEDDED).unwrap().inside(division);
        let today = Date::from_calendar_date(2026, Month::November, 21).unwrap();
        let mut ledgers = Ledgers::default();
        for target in targets(&figures, &plan) {
            ledgers.add(&target, today).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let files = ledgers.write(dir.path()).unwrap();
        (dir, files)
    }

    fn sum(files: &[LedgerFile], kind: &str, source: &str) -> u64 {
        files.iter().filter(|f| f.kind == kind && f.source == source).map(|f| f.rows).sum()
    }

    #[test]
    fn the_ledgers_have_as_many_rows_as_was_published() {
        let (_dir, files) = ledgers("220822");
        assert_eq!(sum(&files, "grid", "grid-office"), 1_058);
        assert_eq!(sum(&files, "camera", "police"), 2_394);
        assert_eq!(sum(&files, "camera", "shops"), 16_000);
        assert_eq!(sum(&files, "case", "mediation"), 2_185);
        assert_eq!(files.len(), 22 * 3 + 1, "each township keeps three ledgers, the county one");
    }

    #[test]
    fn every_row_can_be_imported() {
        let (_dir, files) = ledgers("220822");
        for file in files {
            let bytes = fs::read(&file.path).unwrap();
            let options = Options { crs: Some(Crs::Cgcs2000), ..Options::new(file.source) };
            let ledger = Ledger::open(file.kind, Cursor::new(bytes), options).unwrap();
            assert!(ledger.layout().left_out.is_empty(), "{:?}", ledger.layout().left_out);
            for row in ledger {
                let row = row.unwrap();
                assert!(
                    matches!(&row, Outcome::Row(row) if row.home == file.division.to_string()),
                    "{row:?}"
                );
            }
        }
    }

    #[test]
    fn the_same_figures_give_the_same_ledgers() {
        let read = || {
            let (_dir, files) = ledgers("211381");
            files.iter().map(|file| fs::read(&file.path).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(read(), read());
    }
}
