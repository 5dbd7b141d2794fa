//! A kind as a table: one column for each field or part of a field, built from the contract and its options. It must
//! never name a field that the contract could describe itself; what the contract has no option for (which texts are
//! codes) is said in [`TextForm::of`] and nowhere else.

use std::collections::HashMap;
use std::sync::LazyLock;

use guantong_proto::codes::{CATEGORIES, Code, UNITS};
use guantong_proto::rules::{self, Field, Kind, Policy, Writers};
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, ExtensionDescriptor, FieldDescriptor, Kind as Type,
    MessageDescriptor, Value,
};

use super::error::LedgerError;
use super::text::{half_width, header_key};

/// Header of the column with resource names in exports.
pub(super) const NAME_HEADERS: [&str; 2] = ["resource_name", "资源名称"];
/// Headers of what [`super::write_rejects`] adds.
pub(super) const REJECT_HEADERS: [&str; 2] = ["行号", "原因"];

pub(super) static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    // The bytes are a part of this program and tests read them: a failure is a damaged program file, and then there
    // are no kinds.
    DescriptorPool::decode(guantong_proto::FILE_DESCRIPTOR_SET).unwrap_or_default()
});
static VIEWS: LazyLock<Vec<KindView>> =
    LazyLock::new(|| rules::KINDS.iter().filter_map(KindView::build).collect());

/// A kind as imports, exports and people see it.
#[derive(Debug)]
pub struct KindView {
    /// The kind's rules.
    pub rule: &'static Kind,
    /// Its message.
    pub(super) message: MessageDescriptor,
    /// One for each field or part, in the order of the contract.
    pub(super) columns: Vec<Column>,
    /// What a header, as [`header_key`] makes it, stands for.
    headers: HashMap<String, Meaning>,
    /// The column that a ledger's rows are known by; none where the kind is not kept in ledgers.
    pub(super) key: Option<usize>,
}

/// What a header stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A column, by position.
    Column(usize),
    /// A field that only nodes write.
    NodeField,
    /// A field that needs a column for each part.
    Parts,
    /// What our own files have beside the fields.
    OurOwn,
}

/// One column of a ledger.
#[derive(Debug)]
pub struct Column {
    /// The rule of the field that it holds, or holds a part of.
    pub field: &'static Field,
    /// English header: `grid_code`, `contact.name`.
    pub english: String,
    /// Chinese header.
    pub chinese: String,
    /// Whether an import takes it; the others are written by nodes themselves.
    pub imported: bool,
    /// The field.
    pub(super) descriptor: FieldDescriptor,
    /// The part of a nested message.
    pub(super) part: Option<FieldDescriptor>,
    /// How a cell is written.
    pub(super) form: Form,
}

/// How a cell is written.
#[derive(Debug)]
pub(super) enum Form {
    Text(TextForm),
    Integer,
    Decimal,
    Bool,
    Enum(Vocabulary),
    Date(MessageDescriptor),
    Timestamp(MessageDescriptor),
}

/// What is known of a text beyond being one.
#[derive(Clone, Copy, Debug)]
pub(super) enum TextForm {
    Plain,
    Code(&'static [Code]),
    Division,
    GridCode,
    DeviceId,
    Boundary,
}

impl TextForm {
    fn of(name: &str) -> TextForm {
        match name {
            "category" => TextForm::Code(CATEGORIES),
            "unit" | "pending_unit" => TextForm::Code(UNITS),
            "division" | "holder" | "pending_to" | "sender" | "by" | "code" | "previous_code" => {
                TextForm::Division
            }
            "grid_code" => TextForm::GridCode,
            "device_id" => TextForm::DeviceId,
            "boundary" => TextForm::Boundary,
            _ => TextForm::Plain,
        }
    }
}

/// The words for the values of an enum.
#[derive(Debug)]
pub(super) struct Vocabulary {
    values: Vec<EnumWord>,
    words: HashMap<String, i32>,
}

#[derive(Debug)]
struct EnumWord {
    number: i32,
    english: String,
    label: String,
}

impl Vocabulary {
    fn of(descriptor: &EnumDescriptor) -> Vocabulary {
        let (label, aliases) = (option("label"), option("aliases"));
        let zero = descriptor.get_value(0).map(|value| value.name().to_owned()).unwrap_or_default();
        let prefix = zero.trim_end_matches("UNSPECIFIED");
        let mut found = Vocabulary { values: Vec::new(), words: HashMap::new() };
        for value in descriptor.values().filter(|value| value.number() != 0) {
            let options = value.options();
            let text = |option: &Option<ExtensionDescriptor>| {
                option.as_ref().map(|option| options.get_extension(option).into_owned())
            };
            let label = text(&label).and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
            let english = value.name().strip_prefix(prefix).unwrap_or(value.name()).to_lowercase();
            let mut words =
                vec![value.name().to_owned(), english.clone(), value.number().to_string(), label.clone()];
            let aliases = text(&aliases);
            let aliases = aliases.as_ref().and_then(Value::as_list).unwrap_or_default();
            words.extend(aliases.iter().filter_map(Value::as_str).map(str::to_owned));
            for word in words {
                found.words.entry(enum_key(&word)).or_insert(value.number());
            }
            found.values.push(EnumWord { number: value.number(), english, label });
        }
        found
    }

    /// The value that a label, alias, English name or number means.
    pub(super) fn find(&self, text: &str) -> Option<i32> {
        self.words.get(&enum_key(text)).copied()
    }

    /// The value in words; a number that this program does not know stays one.
    pub(super) fn text(&self, number: i32, chinese: bool) -> String {
        match self.values.iter().find(|value| value.number == number) {
            Some(value) if chinese => value.label.clone(),
            Some(value) => value.english.clone(),
            None => number.to_string(),
        }
    }

    /// The English name and the label of each value.
    pub(super) fn words(self) -> Vec<(String, String)> {
        self.values.into_iter().map(|value| (value.english, value.label)).collect()
    }

    /// All labels, for a message.
    pub(super) fn labels(&self) -> String {
        self.values.iter().map(|value| value.label.as_str()).collect::<Vec<_>>().join("、")
    }
}

fn enum_key(word: &str) -> String {
    half_width(word.trim()).to_lowercase().replace(['-', ' '], "_")
}

/// A label of the contract: an option on enum values or parts.
fn option(name: &str) -> Option<ExtensionDescriptor> {
    POOL.get_extension_by_name(&format!("guantong.v1.{name}"))
}

/// The Chinese label of a field of a nested message.
pub(super) fn part_label(part: &FieldDescriptor) -> String {
    let options = part.options();
    let rule = option("part").map(|part| options.get_extension(&part).into_owned());
    let label = rule.as_ref().and_then(Value::as_message).and_then(|rule| rule.get_field_by_name("label"));
    label.as_deref().and_then(Value::as_str).unwrap_or_default().to_owned()
}

impl Form {
    /// How a field, or one element of it, is written; `None`: it does not fit a cell.
    pub(super) fn of(descriptor: &FieldDescriptor) -> Option<Form> {
        Some(match descriptor.kind() {
            Type::String => Form::Text(TextForm::of(descriptor.name())),
            Type::Int32 | Type::Int64 | Type::Uint32 | Type::Uint64 => Form::Integer,
            Type::Double | Type::Float => Form::Decimal,
            Type::Bool => Form::Bool,
            Type::Enum(found) => Form::Enum(Vocabulary::of(&found)),
            Type::Message(message) => match message.full_name() {
                "guantong.v1.Date" => Form::Date(message),
                "google.protobuf.Timestamp" => Form::Timestamp(message),
                _ => return None,
            },
            _ => return None,
        })
    }
}

/// The parts of a nested message that people see: all but the stamps of entries, which are the node's.
pub(super) fn parts_of(field: &FieldDescriptor) -> Vec<FieldDescriptor> {
    match field.kind() {
        Type::Message(message) => message.fields().filter(|part| part.name() != "stamp").collect(),
        _ => Vec::new(),
    }
}

impl KindView {
    /// Any kind of the contract, by its singular name.
    ///
    /// # Errors
    /// [`LedgerError::UnknownKind`], which names those that exist.
    pub fn by_name(kind: &str) -> Result<&'static KindView, LedgerError> {
        Self::find(kind, |_| true)
    }

    /// A kind that is kept in ledgers, by its singular name.
    ///
    /// # Errors
    /// [`LedgerError::UnknownKind`], which names those that exist.
    pub fn for_ledger(kind: &str) -> Result<&'static KindView, LedgerError> {
        Self::find(kind, |view| view.key.is_some())
    }

    fn find(kind: &str, fits: fn(&KindView) -> bool) -> Result<&'static KindView, LedgerError> {
        let views = || VIEWS.iter().filter(|view| fits(view));
        views().find(|view| view.rule.name == kind).ok_or_else(|| LedgerError::UnknownKind {
            kind: kind.chars().take(40).collect(),
            known: views().map(|view| view.rule.name).collect::<Vec<_>>().join(", "),
        })
    }

    /// The columns of the kind, in the order of the contract.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The column that rows are known by.
    pub fn key_column(&self) -> Option<&Column> {
        self.key.and_then(|key| self.columns.get(key))
    }

    /// Whether rows are known by the number that their source gave them, and not by a code of their own.
    pub fn is_keyed_by_source(&self) -> bool {
        self.key_column().is_some_and(|key| key.field.number == rules::fields::EXTERNAL_REFS)
    }

    /// What a header stands for; `None`: nothing that is known.
    pub(super) fn meaning(&self, header: &str) -> Option<Meaning> {
        self.headers.get(&header_key(header)).copied()
    }

    /// An empty message of the kind.
    pub(super) fn empty(&self) -> DynamicMessage {
        DynamicMessage::new(self.message.clone())
    }

    fn build(rule: &'static Kind) -> Option<KindView> {
        let message = POOL.get_message_by_name(rule.message)?;
        let mut view = KindView { rule, message, columns: Vec::new(), headers: HashMap::new(), key: None };
        for field in rule.fields {
            let descriptor = view.message.get_field(field.number)?;
            if field.policy == Policy::Union && field.number != rules::fields::EXTERNAL_REFS {
                view.add_union(field, &descriptor);
            } else {
                view.add_field(field, descriptor);
            }
        }
        view.key = view.find_key();
        // Short and foreign English names, wherever the contract does not use them otherwise.
        for (short, english) in [("name", "display_name"), ("number", "external_refs.number")] {
            if let Some(at) = view.columns.iter().position(|column| column.english == english) {
                view.head(short, Meaning::Column(at));
            }
        }
        for header in NAME_HEADERS.iter().chain(&REJECT_HEADERS) {
            view.head(header, Meaning::OurOwn);
        }
        Some(view)
    }

    /// Rows are known by the kind's first field where it is a text of its own, else by the number that the source
    /// gave. What a node writes about itself is not kept in ledgers.
    fn find_key(&self) -> Option<usize> {
        let first = self.columns.first()?;
        if first.field.writers == Writers::Home {
            return None;
        }
        let own = first.field.required && matches!(first.form, Form::Text(_));
        let number = || self.columns.iter().position(|c| c.field.number == rules::fields::EXTERNAL_REFS);
        if own { Some(0) } else { number() }
    }

    /// A union's entries have ids that only nodes give. Its headers are known all the same.
    fn add_union(&mut self, field: &'static Field, descriptor: &FieldDescriptor) {
        for part in parts_of(descriptor) {
            self.head(&format!("{}.{}", field.name, part.name()), Meaning::NodeField);
            self.head(&format!("{}{}", field.label, part_label(&part)), Meaning::NodeField);
        }
        self.head(field.name, Meaning::NodeField);
        self.head(field.label, Meaning::NodeField);
    }

    fn add_field(&mut self, field: &'static Field, descriptor: FieldDescriptor) {
        let imported =
            field.derived_from.is_none() && !matches!(field.writers, Writers::Node | Writers::Moves);
        if let Some(form) = Form::of(&descriptor) {
            let (english, chinese) = (field.name.to_owned(), field.label.to_owned());
            self.add_column(Column { field, english, chinese, imported, descriptor, part: None, form });
            return;
        }
        for part in parts_of(&descriptor) {
            let outside = field.number == rules::fields::EXTERNAL_REFS && part.name() != "number";
            let Some(form) = Form::of(&part).filter(|_| !outside && !part.is_list()) else { continue };
            let english = format!("{}.{}", field.name, part.name());
            let label = part_label(&part);
            let chinese = if field.number == rules::fields::EXTERNAL_REFS {
                label
            } else {
                format!("{}{label}", field.label)
            };
            let descriptor = descriptor.clone();
            self.add_column(Column { field, english, chinese, imported, descriptor, part: Some(part), form });
        }
        self.head(field.name, Meaning::Parts);
        self.head(field.label, Meaning::Parts);
    }

    fn add_column(&mut self, column: Column) {
        let at = self.columns.len();
        let meaning = if column.imported { Meaning::Column(at) } else { Meaning::NodeField };
        let part = column.part.as_ref().map_or("", |part| part.name()).to_owned();
        self.head(&column.english, meaning);
        self.head(&column.chinese, meaning);
        for alias in column.field.aliases.iter().filter(|alias| alias.part == part) {
            self.head(alias.header, meaning);
        }
        self.columns.push(column);
    }

    /// What was said first about a header stays.
    fn head(&mut self, header: &str, meaning: Meaning) {
        self.headers.entry(header_key(header)).or_insert(meaning);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn column(kind: &str, header: &str) -> String {
        let view = KindView::by_name(kind).unwrap();
        match view.meaning(header) {
            Some(Meaning::Column(at)) => view.columns[at].english.clone(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn headers_of_all_sorts_are_understood() {
        for (kind, header, english) in [
            ("grid", "网格编码", "grid_code"),
            ("grid", "GridCode", "grid_code"),
            ("grid", "网格长", "contact.name"),
            ("grid", "网格长电话", "contact.telephone"),
            ("grid", "专职网格员人数", "staffing.full_time_members"),
            ("grid", "经度", "centroid.longitude"),
            ("case", "编号", "external_refs.number"),
            ("case", "number", "external_refs.number"),
            ("case", "涉及金额(元)", "amount_yuan"),
            ("case", "办结日期", "outcome.concluded_on"),
            ("case", "当事人", "parties.name"),
            ("camera", "DeviceID", "device_id"),
            ("camera", "备案号", "filing.number"),
            ("camera", "name", "display_name"),
            ("division", "code", "code"),
            ("division", "name", "display_name"),
        ] {
            assert_eq!(column(kind, header), english, "{kind}: {header}");
        }
        assert_eq!(column("camera", "概略坐标经度"), "Some(NodeField)");
        assert_eq!(column("case", "流转记录"), "Some(NodeField)");
        assert_eq!(column("camera", "坐标"), "Some(Parts)");
        assert_eq!(column("camera", "颜色"), "None");
    }

    #[test]
    fn rows_are_known_by_the_key_of_their_kind() {
        for (kind, key) in [
            ("grid", "grid_code"),
            ("case", "external_refs.number"),
            ("camera", "device_id"),
            ("division", "code"),
        ] {
            assert_eq!(KindView::for_ledger(kind).unwrap().key_column().unwrap().english, key);
        }
        let error = KindView::for_ledger("node").unwrap_err().to_string();
        assert!(error.contains("grid, case, camera, division"), "{error}");
        assert!(KindView::by_name("node").is_ok());
    }

    /// Comparing without case and joining marks must not make two headers one.
    #[test]
    fn no_header_means_two_columns() {
        for view in VIEWS.iter() {
            for (at, column) in view.columns.iter().enumerate().filter(|(_, column)| column.imported) {
                for header in [&column.english, &column.chinese] {
                    assert_eq!(view.meaning(header), Some(Meaning::Column(at)), "{header}");
                }
            }
        }
    }

    #[test]
    fn enum_values_are_known_by_label_alias_name_and_number() {
        let view = KindView::by_name("camera").unwrap();
        let Form::Enum(state) = &view.columns.iter().find(|c| c.english == "status.state").unwrap().form
        else {
            unreachable!()
        };
        for word in ["在线", "正常", "ON", "camera_state_on", "1", "１"] {
            assert_eq!(state.find(word), Some(1), "{word}");
        }
        assert_eq!(state.find("0"), None);
        assert_eq!(state.text(3, false), "video_lost");
        assert_eq!(state.text(77, true), "77");
    }
}
