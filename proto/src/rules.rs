//! The rules of every kind and field, as static tables generated from the options in the `.proto` files.
//!
//! The engine is driven by these tables and has no list of fields of its own. They say what the
//! schema says and nothing more: what a rule means is decided by whoever reads it (merge, release,
//! access), never here. The meaning of each value is documented in `guantong/v1/options.proto`.

/// A tier of the administrative hierarchy, lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// 乡级.
    Township,
    /// 县级.
    County,
    /// 地级.
    Prefecture,
    /// 省级.
    Province,
}

/// What a reader is shown of a field while writes that did not see each other stand side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// The greatest stamp.
    Latest,
    /// The write of the tier that owns the field, then the greatest stamp.
    Owner,
    /// The highest tier's write, then the greatest stamp.
    Senior,
    /// The greatest observation time: field 2 of the value, a `google.protobuf.Timestamp`.
    Observed,
    /// All entries by entry id (field 1), with the greatest entry stamp (field 15, fixed64) for each.
    Union,
}

/// Which divisions may write a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Writers {
    /// The home, the owner's tier and tiers above it; without an owner, the home and every division above it.
    HomeOwnerAbove,
    /// The home only.
    Home,
    /// The home and its county.
    HomeAndCounty,
    /// The home's county only (its prefecture where there is no county).
    HomeCounty,
    /// The division that holds the case; a rule of local writes.
    Holder,
    /// Tiers above the division that holds the case; a rule of local writes.
    AboveHolder,
    /// Any division at or above one in the case's audience.
    Audience,
    /// Case moves only, together with the lifecycle.
    Moves,
    /// The node itself: nobody writes the field by hand.
    Node,
}

/// How urgently a change of a field travels, most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Case state, holder, steps, supervision, risk.
    Urgent,
    /// Other fields of cases, divisions, nodes.
    Normal,
    /// Grids and cameras; imports, backfill and repair of anything.
    Bulk,
}

/// Who is sent the records of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Audience {
    /// Every node above or at the home or a division that the record's steps handed it to.
    Steps,
    /// Every node below the home as well.
    Subtree,
}

/// What is asked of a writer when a field arrives on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkWriters {
    /// What the field's rule says.
    ByField,
    /// At or above a division of the record's audience, for every field.
    Audience,
}

/// Another word that ledgers use as a column's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The part of a nested message that the column holds, by its protobuf name; empty for the field itself.
    pub part: &'static str,
    /// The header.
    pub header: &'static str,
}

/// A value of an enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnumValue {
    /// Its number.
    pub number: i32,
    /// Its protobuf name, such as `CASE_RISK_RED`.
    pub name: &'static str,
    /// Chinese label; empty for the value that says nothing.
    pub label: &'static str,
}

/// An enum of the contract: the numbers that a value may have as far as this program knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enum {
    /// Its values, by ascending number.
    pub values: &'static [EnumValue],
}

/// A field of a nested message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Protobuf field number.
    pub number: u32,
    /// Protobuf field name.
    pub name: &'static str,
    /// Whether there may be several.
    pub repeated: bool,
    /// What it holds.
    pub content: Content,
}

/// What a field holds, as far as enums are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// No enum, and no message with one inside.
    Plain,
    /// A value of an enum.
    Enum(&'static Enum),
    /// A message; its parts that hold enums.
    Message(&'static [Part]),
}

/// The rule of one field of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Protobuf field number.
    pub number: u32,
    /// Protobuf field name, such as `grid_code`.
    pub name: &'static str,
    /// Chinese label.
    pub label: &'static str,
    /// Other headers of the ledger columns that hold the field or a part of it.
    pub aliases: &'static [Alias],
    /// What is shown while writes stand side by side.
    pub policy: Policy,
    /// The tier that owns the field: present exactly with [`Policy::Owner`].
    pub owner: Option<Tier>,
    /// Which divisions may write it.
    pub writers: Writers,
    /// The highest tier that may hold it.
    pub release: Tier,
    /// Also held by every tier that the case was handed to and the nodes between, until it is sealed.
    pub file: bool,
    /// Says something about a person.
    pub personal: bool,
    /// How urgently a change travels.
    pub lane: Lane,
    /// Must be present for the record to count as complete.
    pub required: bool,
    /// Number of the field that this one is derived from.
    pub derived_from: Option<u32>,
    /// Whether there may be several.
    pub repeated: bool,
    /// Which enums its values are made of.
    pub content: Content,
}

/// A kind of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Number of the kind: fixed for ever, never reused.
    pub number: u32,
    /// Singular name, such as `grid`.
    pub name: &'static str,
    /// Plural name as in resource names, such as `grids`.
    pub collection: &'static str,
    /// Chinese label.
    pub label: &'static str,
    /// Full name of the protobuf message, such as `guantong.v1.Grid`.
    pub message: &'static str,
    /// Who is sent the records.
    pub audience: Audience,
    /// What is asked of a writer on a link.
    pub link_writers: LinkWriters,
    /// The fields by ascending number, without the resource name.
    pub fields: &'static [Field],
}

/// Whether fields with this number are never of a record: a service says them beside it, such as the etag.
pub const fn is_beside(number: u32) -> bool {
    80 <= number && number <= 89
}

impl Enum {
    /// Whether a value has this number.
    pub fn contains(&self, number: i32) -> bool {
        self.values.binary_search_by_key(&number, |value| value.number).is_ok()
    }
}

impl Kind {
    /// The kind of that singular name.
    pub fn by_name(name: &str) -> Option<&'static Kind> {
        KINDS.iter().find(|kind| kind.name == name)
    }

    /// The field of that number.
    pub fn field(&self, number: u32) -> Option<&'static Field> {
        let at = self.fields.binary_search_by_key(&number, |field| field.number).ok()?;
        self.fields.get(at)
    }

    /// The field of that protobuf name.
    pub fn field_by_name(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

mod generated {
    use super::{
        Alias, Audience, Content, Enum, EnumValue, Field, Kind, Lane, LinkWriters, Part, Policy, Tier,
        Writers,
    };

    include!(concat!(env!("OUT_DIR"), "/rules.rs"));
}

pub use generated::{KINDS, fields};

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    /// What was agreed on, field by field: policy, owner, release, then what is out of the ordinary.
    /// A field that is added need not be listed; one that is listed changes only on purpose, since nodes
    /// of different versions must agree on it.
    const AGREED: &[(&str, &[&str])] = &[
        (
            "grid",
            &[
                "grid_code Owner T V Bulk required",
                "division Owner C V Bulk required",
                "display_name Owner T P Bulk required",
                "grid_type Owner C V Bulk required",
                "state Owner C V Bulk required",
                "valid_from Owner C V Bulk",
                "valid_to Owner C V Bulk",
                "boundary Owner C C Bulk",
                "centroid Owner C P Bulk",
                "households Owner T P Bulk",
                "residents Owner T P Bulk",
                "staffing Owner T V Bulk",
                "contact Owner T C Bulk personal",
                "deleted Senior - V Bulk",
            ],
        ),
        (
            "case",
            &[
                "case_kind Owner T V Normal required",
                "category Owner T V Normal required",
                "scale Owner T V Normal",
                "channel Owner T V Normal required",
                "risk Senior - V Urgent",
                "division Owner T V Normal required",
                "grid_code Owner T C Normal",
                "occurred_on Owner T V Normal",
                "received_on Owner T V Normal required",
                "due_on Owner T V Normal",
                "title Owner T C Normal file required",
                "narrative Owner T C Normal file",
                "address Owner T C Normal file",
                "parties Owner T T Normal file personal",
                "involved_count Owner T P Normal",
                "amount_yuan Owner T P Normal",
                "lifecycle Senior - V Urgent Holder required",
                "supervision Senior - V Urgent AboveHolder",
                "outcome Latest - V Normal Holder",
                "mediator Latest - C Normal Holder personal",
                "reply Latest - C Normal Holder file",
                "steps Union - V Urgent Moves",
                "notes Union - C Normal Audience file personal",
                "sealed Latest - V Normal HomeCounty",
                "duplicate_of Latest - V Normal",
                "reopened_from Latest - V Normal",
                "deleted Senior - V Normal",
            ],
        ),
        (
            "camera",
            &[
                "device_id Owner C V Bulk required",
                "division Owner C V Bulk required",
                "ownership Owner C V Bulk required",
                "point_class Owner C V Bulk required",
                "functions Owner C V Bulk",
                "source_network Owner C V Bulk required",
                "ptz_type Owner C P Bulk",
                "imaging Owner C P Bulk",
                "placement Owner C P Bulk",
                "supplementary_light Owner C P Bulk",
                "direction Owner C P Bulk",
                "display_name Owner C C Bulk required",
                "address Owner C C Bulk required",
                "pole_code Owner C C Bulk",
                "location Owner C C Bulk required",
                "coarse_location Owner C P Bulk Node",
                "management_unit Owner C P Bulk required",
                "maintenance_unit Owner C P Bulk",
                "contact Owner C C Bulk personal",
                "installed_on Owner C P Bulk",
                "retention_days Owner C P Bulk",
                "filing Owner C V Bulk",
                "connected Owner C V Bulk required",
                "status Observed - V Bulk HomeAndCounty",
            ],
        ),
        ("division", &["code Latest - V Normal required", "display_name Latest - V Normal required"]),
        ("node", &["software_version Latest - V Normal Home required", "backlog Latest - V Normal Home"]),
        (
            "submission",
            &["period Latest - V Normal Home required", "declaration Latest - V Normal Home required"],
        ),
        ("threshold", &["measure Latest - V Normal required", "bounds Senior - V Normal required"]),
    ];

    fn tier(tier: Tier) -> &'static str {
        match tier {
            Tier::Township => "T",
            Tier::County => "C",
            Tier::Prefecture => "P",
            Tier::Province => "V",
        }
    }

    fn describe(field: &Field) -> String {
        let owner = field.owner.map_or("-", tier);
        let lane = field.lane;
        let mut text = format!("{} {:?} {owner} {} {lane:?}", field.name, field.policy, tier(field.release));
        if field.writers != Writers::HomeOwnerAbove {
            text += &format!(" {:?}", field.writers);
        }
        for (set, word) in [(field.file, "file"), (field.personal, "personal"), (field.required, "required")]
        {
            if set {
                text = format!("{text} {word}");
            }
        }
        text
    }

    #[test]
    fn the_rules_are_those_agreed_on() {
        for (name, agreed) in AGREED {
            let kind = Kind::by_name(name).expect("the kind exists");
            for line in *agreed {
                let field = line.split(' ').next().and_then(|name| kind.field_by_name(name));
                assert_eq!(field.map(describe).as_deref(), Some(*line), "{name}");
            }
        }
    }

    #[test]
    fn kinds_keep_their_numbers_and_audiences() {
        let numbers: Vec<_> = KINDS.iter().map(|kind| (kind.number, kind.name, kind.collection)).collect();
        let fixed = [
            (1, "grid", "grids"),
            (2, "case", "cases"),
            (3, "camera", "cameras"),
            (4, "division", "divisions"),
            (5, "node", "nodes"),
        ];
        assert!(numbers.starts_with(&fixed), "{numbers:?}");
        for later in [(7, "submission", "submissions"), (8, "threshold", "thresholds")] {
            assert!(numbers.contains(&later), "{numbers:?}");
        }
        for kind in KINDS {
            let links = if kind.name == "case" { LinkWriters::Audience } else { LinkWriters::ByField };
            let below = ["division", "threshold"].contains(&kind.name);
            let audience = if below { Audience::Subtree } else { Audience::Steps };
            assert_eq!((kind.link_writers, kind.audience), (links, audience), "{}", kind.name);
        }
    }

    #[test]
    fn every_kind_has_the_common_fields() {
        for kind in KINDS {
            let common = [
                (fields::EXTERNAL_REFS, "external_refs", Policy::Union, Writers::HomeOwnerAbove),
                (fields::DELETED, "deleted", Policy::Senior, Writers::HomeOwnerAbove),
                (fields::ERASED, "erased", Policy::Union, Writers::HomeOwnerAbove),
                (fields::RECORD_COMPLETE, "record_complete", Policy::Latest, Writers::Node),
            ];
            for (number, name, policy, writers) in common {
                let field = kind.field(number).expect("a common field");
                assert_eq!((field.name, field.policy, field.writers), (name, policy, writers));
                assert_eq!(field.release, Tier::Province);
            }
        }
    }

    #[test]
    fn the_table_can_be_searched() {
        for kind in KINDS {
            assert!(kind.fields.is_sorted_by(|a, b| a.number < b.number), "{}", kind.name);
            assert!(kind.field(1).is_none(), "the resource name is no field");
            assert!(kind.fields.iter().all(|f| !is_beside(f.number)), "{}", kind.name);
            for field in kind.fields {
                assert_eq!(kind.field(field.number), Some(field));
                assert!(!field.label.is_empty(), "{}.{}", kind.name, field.name);
                let source = field.derived_from.map(|number| kind.field(number));
                assert_ne!(source, Some(None), "{}.{} is derived from nothing", kind.name, field.name);
                assert_ne!(field.derived_from, Some(field.number));
            }
        }
        let camera = Kind::by_name("camera").expect("the kind exists");
        let coarse = camera.field(fields::camera::COARSE_LOCATION).expect("the field exists");
        assert_eq!(coarse.derived_from, Some(fields::camera::LOCATION));
        assert_eq!(Kind::by_name("cameras"), None);
        assert_eq!(camera.field(89), None);
    }

    #[test]
    fn the_table_knows_the_enums_inside_of_fields() {
        let case = Kind::by_name("case").expect("the kind exists");
        let content = |name: &str| case.field_by_name(name).map(|field| field.content);
        let Some(Content::Enum(risk)) = content("risk") else { panic!("an enum") };
        assert!(risk.contains(4) && risk.contains(0) && !risk.contains(5) && !risk.contains(-1));
        assert_eq!((risk.values[1].name, risk.values[1].label), ("CASE_RISK_RED", "红"));
        let Some(Content::Message([state])) = content("lifecycle") else { panic!("one enum inside") };
        assert_eq!((state.number, state.name, state.repeated), (1, "state", false));
        assert_eq!((content("title"), content("due_on")), (Some(Content::Plain), Some(Content::Plain)));
        assert!(case.field_by_name("parties").is_some_and(|field| field.repeated));
        for kind in KINDS {
            for value in kind.fields.iter().filter_map(|field| match field.content {
                Content::Enum(found) => Some(found.values),
                _ => None,
            }) {
                assert!(value.is_sorted_by(|a, b| a.number < b.number), "{}", kind.name);
            }
        }
    }
}
