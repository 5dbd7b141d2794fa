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
    use super::{Alias, Audience, Field, Kind, Lane, LinkWriters, Policy, Tier, Writers};

    include!(concat!(env!("OUT_DIR"), "/rules.rs"));
}

pub use generated::{KINDS, fields};
