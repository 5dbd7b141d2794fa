//! What the first line of a ledger means: which column holds what, and which are left out and why. It must never let
//! a column through that is out of bounds.

use guantong_proto::rules::{Field, Policy};

use super::error::LedgerError;
use super::read::Options;
use super::schema::{Column, Form, KindView, Meaning, TextForm};
use super::text::{header_key, shortened};

/// A column that an import does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The column's header.
    pub header: String,
    /// Why, in plain words.
    pub reason: &'static str,
    /// It holds what this program has no place for: something about people that is none of its business, a password,
    /// a network address.
    pub is_out_of_bounds: bool,
}

const OUT_OF_BOUNDS: &str = "out of bounds: there is no place for identity numbers, ethnicity, belief, categories of people, \
     biometrics, passwords or network addresses (按规定不采集，已略去)";
const UNKNOWN: &str = "no field of this kind has that name (无对应字段，已略去)";
const NODE_FIELD: &str = "nodes write this themselves (由节点自行维护，不从台账导入)";
const PARTS: &str =
    "its parts need columns of their own, such as longitude and latitude (应按组成部分分列填写)";
const HALF_POINT: &str = "a place needs both longitude and latitude (应同时有经度和纬度两列)";
const UNOBSERVED: &str = "an observation needs its time: add a column for it, or name one time for the whole ledger (缺少观测时间)";

/// Words that make a Chinese header out of bounds wherever they stand in it.
const FORBIDDEN_WORDS: [&str; 31] = [
    "身份证",
    "公民身份",
    "证件号",
    "民族",
    "宗教",
    "信仰",
    "人员类别",
    "人员类型",
    "人员分类",
    "人员标签",
    "重点人员",
    "政治面貌",
    "人员指纹",
    "指纹信息",
    "指纹图",
    "虹膜",
    "声纹",
    "人脸照",
    "人脸特征",
    "人脸图",
    "人脸库",
    "照片",
    "头像",
    "密码",
    "口令",
    "ip地址",
    "mac地址",
    "端口",
    "用户名",
    "登录名",
    "流地址",
];
/// Headers that are out of bounds as they are.
const FORBIDDEN_HEADERS: [&str; 32] = [
    "idnumber",
    "idcard",
    "idcardnumber",
    "idno",
    "identitynumber",
    "identitycard",
    "nationalid",
    "passport",
    "passportnumber",
    "ethnicity",
    "ethnicgroup",
    "nation",
    "religion",
    "belief",
    "personcategory",
    "peoplecategory",
    "fingerprint",
    "指纹",
    "iris",
    "faceimage",
    "facefeature",
    "photo",
    "password",
    "passwd",
    "pwd",
    "ip",
    "ipaddress",
    "macaddress",
    "port",
    "username",
    "rtsp",
    "rtspurl",
];
/// Headers that say whether a row is secret.
const SECRECY_HEADERS: [&str; 6] = ["secrecy", "保密属性", "涉密", "是否涉密", "涉密属性", "密级"];

/// Whether a column holds what this program has no place for.
pub(super) fn is_out_of_bounds(header: &str) -> bool {
    let key = header_key(header);
    let short =
        ["ip", "mac"].iter().any(|word| key.strip_prefix(word).is_some_and(|rest| rest.starts_with("地址")));
    short
        || FORBIDDEN_WORDS.iter().any(|word| key.contains(word))
        || FORBIDDEN_HEADERS.contains(&key.trim_end_matches(|c: char| c.is_ascii_digit()))
}

/// The columns of one field.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) field: &'static Field,
    /// Position in the row, and the column.
    pub(super) cells: Vec<(usize, &'static Column)>,
}

impl Group {
    pub(super) fn is_point(&self) -> bool {
        let message = self.cells.first().and_then(|(_, column)| column.part.as_ref());
        message.is_some_and(|part| part.parent_message().full_name() == "guantong.v1.LngLat")
    }

    fn has_coordinates(&self) -> bool {
        let boundary = |c: &&Column| matches!(c.form, Form::Text(TextForm::Boundary));
        self.is_point() || self.cells.iter().any(|(_, column)| boundary(column))
    }
}

/// What the columns of a ledger hold.
#[derive(Debug)]
pub struct Layout {
    /// The first line, trimmed.
    pub headers: Vec<String>,
    /// Columns that are not taken, in the order of the file.
    pub left_out: Vec<LeftOut>,
    pub(super) groups: Vec<Group>,
    pub(super) key: usize,
    pub(super) secrecy: Option<usize>,
}

impl Layout {
    pub(super) fn of(
        view: &'static KindView,
        headers: &[String],
        options: &Options,
    ) -> Result<Layout, LedgerError> {
        let mut layout = Layout {
            headers: headers.to_vec(),
            left_out: Vec::new(),
            groups: Vec::new(),
            key: usize::MAX,
            secrecy: None,
        };
        for (at, header) in headers.iter().enumerate() {
            match view.meaning(header) {
                Some(Meaning::Column(column)) => layout.take(view, at, column)?,
                Some(Meaning::OurOwn) => {}
                Some(Meaning::NodeField) => layout.leave(at, NODE_FIELD, false),
                Some(Meaning::Parts) => layout.leave(at, PARTS, false),
                None if SECRECY_HEADERS.contains(&header_key(header).as_str()) => {
                    if let Some(first) = layout.secrecy.replace(at) {
                        return Err(layout.duplicate(first, at, "secrecy 保密属性".to_owned()));
                    }
                }
                None if is_out_of_bounds(header) => layout.leave(at, OUT_OF_BOUNDS, true),
                None => layout.leave(at, UNKNOWN, false),
            }
        }
        layout.check_key(view)?;
        layout.leave_halves(options);
        let coordinates = layout.groups.iter().filter(|group| group.has_coordinates());
        let columns: Vec<&str> =
            coordinates.flat_map(|group| &group.cells).map(|(at, _)| layout.header(*at)).collect();
        if !columns.is_empty() && options.crs.is_none() {
            return Err(LedgerError::CrsMissing { columns: columns.join(", ") });
        }
        Ok(layout)
    }

    /// The caller's header for a field (`contact`) or a part (`contact.name`) as the contract names it; the name
    /// itself where the ledger has no such column.
    pub fn header_of<'a>(&'a self, name: &'a str) -> &'a str {
        let cells = || self.groups.iter().flat_map(|group| &group.cells);
        let found = cells().find(|(_, c)| c.english == name).or(cells().find(|(_, c)| c.field.name == name));
        found.map_or(name, |(at, _)| self.header(*at))
    }

    pub(super) fn header(&self, at: usize) -> &str {
        self.headers.get(at).map_or("", String::as_str)
    }

    fn take(&mut self, view: &'static KindView, at: usize, column: usize) -> Result<(), LedgerError> {
        let Some(found) = view.columns.get(column) else { return Ok(()) };
        if view.key == Some(column) {
            self.key = at;
        }
        let number = found.field.number;
        let place = match self.groups.iter().position(|group| group.field.number == number) {
            Some(place) => place,
            None => {
                self.groups.push(Group { field: found.field, cells: Vec::new() });
                self.groups.len() - 1
            }
        };
        let Some(group) = self.groups.get_mut(place) else { return Ok(()) };
        let first =
            group.cells.iter().find(|(_, other)| other.english == found.english).map(|(first, _)| *first);
        group.cells.push((at, found));
        match first {
            Some(first) => Err(self.duplicate(first, at, format!("{} {}", found.english, found.chinese))),
            None => Ok(()),
        }
    }

    fn leave(&mut self, at: usize, reason: &'static str, is_out_of_bounds: bool) {
        let header = match self.header(at) {
            "" => format!("(第 {} 列)", at + 1),
            header => shortened(header, 40),
        };
        self.left_out.push(LeftOut { header, reason, is_out_of_bounds });
    }

    fn duplicate(&self, first: usize, second: usize, meaning: String) -> LedgerError {
        let (first, second) = (self.header(first).to_owned(), self.header(second).to_owned());
        LedgerError::DuplicateColumn { first, second, meaning }
    }

    fn check_key(&self, view: &KindView) -> Result<(), LedgerError> {
        let Some(key) = view.key_column().filter(|_| self.key == usize::MAX) else { return Ok(()) };
        let found: Vec<String> = self.headers.iter().take(60).map(|header| shortened(header, 20)).collect();
        Err(LedgerError::MissingColumn {
            english: key.english.clone(),
            chinese: key.chinese.clone(),
            found: found.join(", "),
        })
    }

    /// Leaves out fields of which the ledger has a part that means nothing alone.
    fn leave_halves(&mut self, options: &Options) {
        let mut left = Vec::new();
        self.groups.retain(|group| {
            let is_timed = |c: &Column| matches!(c.form, Form::Timestamp(_));
            let reason = if group.is_point() && group.cells.len() < 2 {
                HALF_POINT
            } else if group.field.policy == Policy::Observed
                && options.observed_ms.is_none()
                && !group.cells.iter().any(|(_, column)| is_timed(column))
            {
                UNOBSERVED
            } else {
                return true;
            };
            left.extend(group.cells.iter().map(|(at, _)| (*at, reason)));
            false
        });
        for (at, reason) in left {
            self.leave(at, reason, false);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::ledger::Crs;

    fn layout(kind: &str, headers: &str, crs: Option<Crs>) -> Result<Layout, LedgerError> {
        let headers: Vec<String> = headers.split(',').map(str::to_owned).collect();
        let options = Options { crs, ..Options::new("test") };
        Layout::of(KindView::for_ledger(kind).unwrap(), &headers, &options)
    }

    #[test]
    fn columns_out_of_bounds_are_named_and_left_out() {
        let headers = "网格编码,网格长身份证号,民族,宗教信仰,人员类别,登录密码,IP地址,端口号,用户名,指纹,ID Card,IP,颜色";
        let layout = layout("grid", headers, None).unwrap();
        let (out, other): (Vec<_>, Vec<_>) = layout.left_out.iter().partition(|left| left.is_out_of_bounds);
        let out: Vec<&str> = out.iter().map(|left| left.header.as_str()).collect();
        assert_eq!(out.join(","), headers.replace("网格编码,", "").replace(",颜色", ""));
        assert_eq!(other.iter().map(|left| left.header.as_str()).collect::<Vec<_>>(), ["颜色"]);
        assert_eq!(layout.groups.len(), 1);
    }

    #[test]
    fn no_field_of_the_contract_is_out_of_bounds() {
        for kind in guantong_proto::rules::KINDS {
            for column in KindView::by_name(kind.name).unwrap().columns() {
                let aliases = column.field.aliases.iter().map(|alias| alias.header);
                for header in aliases.chain([column.english.as_str(), &column.chinese]) {
                    assert!(!is_out_of_bounds(header), "{header}");
                }
            }
        }
    }

    #[test]
    fn a_missing_key_is_named_in_both_languages() {
        let error = layout("camera", "设备名称,地址", None).unwrap_err().to_string();
        for word in ["device_id", "设备编码", "设备名称, 地址"] {
            assert!(error.contains(word), "{error}");
        }
        let error = layout("case", "标题", None).unwrap_err().to_string();
        assert!(error.contains("external_refs.number") && error.contains("编号"), "{error}");
    }

    #[test]
    fn two_columns_for_one_field_are_an_error() {
        let error = layout("grid", "网格编码,户数,总户数", None).unwrap_err().to_string();
        assert!(error.contains("`户数` and `总户数`") && error.contains("households"), "{error}");
    }

    #[test]
    fn coordinates_need_their_system() {
        let error = layout("grid", "网格编码,经度,纬度", None).unwrap_err().to_string();
        assert!(error.contains("--crs") && error.contains("经度, 纬度"), "{error}");
        assert!(layout("grid", "网格编码,边界", None).is_err());
        assert!(layout("grid", "网格编码,经度,纬度", Some(Crs::Gcj02)).is_ok());
        let half = layout("grid", "网格编码,经度", None).unwrap();
        assert_eq!(half.left_out[0].reason, HALF_POINT);
        assert!(layout("camera", "设备编码,概略坐标经度,概略坐标纬度", None).is_ok(), "not imported at all");
    }

    #[test]
    fn problems_of_the_node_can_be_told_in_the_ledgers_words() {
        let layout = layout("grid", "网格编码,网格长,联系电话", None).unwrap();
        assert_eq!(layout.header_of("contact.telephone"), "联系电话");
        assert_eq!(layout.header_of("contact"), "网格长");
        assert_eq!(layout.header_of("households"), "households");
    }
}
