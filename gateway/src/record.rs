//! A record: its name, and a register for each field. Fields are raw protobuf bytes here, so that a field this node
//! does not know is kept like any other.
//!
//! Nothing here decides anything: merging is `merge`, what may be held is `release`, who may write is `access`.

use std::fmt;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::division::Division;
use crate::schema::{KindId, Schema};
use crate::stamp::{Stamp, Writer};

pub mod audience;
pub mod codec;
pub mod raw;
pub mod reader;
pub mod view;

/// Number of a protobuf field.
pub type FieldNumber = u32;

/// The longest id of a record, in bytes.
pub const ID_MAX_BYTES: usize = 128;

/// `divisions/{home}/{kind}s/{id}`. The home is never a village and never changes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordName {
    /// Where the record was born.
    pub home: Division,
    /// Position in the schema.
    pub kind: KindId,
    /// Unique within home and kind.
    pub id: Box<str>,
}

/// A name that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not of the form of a resource name.
    #[error("`{0}` is not a record name; write divisions/{{12-digit division}}/{{kind}}s/{{id}}")]
    Form(String),
    /// The home is no division that can be one.
    #[error("`{0}` is not a division that a record can belong to: {1}")]
    Home(String, String),
    /// The kind is not in the schema.
    #[error("this node knows no kind `{0}`")]
    Kind(String),
    /// The id is empty, too long or has characters that cannot stand in a name.
    #[error("`{0}` is not a record id: 1 to 128 bytes without blanks, control characters or `/`")]
    Id(String),
}

impl RecordName {
    /// Checks the id and that the home is not a village.
    pub fn new(home: Division, kind: KindId, id: &str) -> Result<RecordName, NameError> {
        if home != home.home() {
            return Err(NameError::Home(home.to_string(), "a village is never a home".into()));
        }
        let fits = (1..=ID_MAX_BYTES).contains(&id.len())
            && !id.chars().any(|c| c == '/' || c.is_control() || c.is_whitespace());
        if !fits {
            return Err(NameError::Id(id.chars().take(40).collect()));
        }
        Ok(RecordName { home, kind, id: id.into() })
    }

    /// Reads a resource name.
    pub fn parse(schema: &Schema, name: &str) -> Result<RecordName, NameError> {
        let form = || NameError::Form(name.chars().take(200).collect());
        let rest = name.strip_prefix("divisions/").ok_or_else(form)?;
        let (home, rest) = rest.split_once('/').ok_or_else(form)?;
        let (collection, id) = rest.split_once('/').ok_or_else(form)?;
        if home.len() != 12 {
            return Err(form());
        }
        let division = Division::parse(home).map_err(|e| NameError::Home(home.into(), e.to_string()))?;
        let kind = schema
            .kind_of_collection(collection)
            .ok_or_else(|| NameError::Kind(collection.chars().take(40).collect()))?;
        RecordName::new(division, kind, id)
    }

    /// The resource name.
    pub fn display<'a>(&'a self, schema: &'a Schema) -> impl fmt::Display + 'a {
        struct Shown<'a>(&'a RecordName, &'a Schema);
        impl fmt::Display for Shown<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let RecordName { home, kind, id } = self.0;
                write!(f, "divisions/{home}/{}/{id}", self.1.kind(*kind).rule.collection)
            }
        }
        Shown(self, schema)
    }
}

impl fmt::Debug for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.home, self.kind.0, self.id)
    }
}

/// The latest of one writer that a register has taken in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Who.
    pub writer: Writer,
    /// The latest write of that writer this register has seen.
    pub stamp: Stamp,
    /// That write's value, while it stands; empty bytes say "cleared". `None`: it was replaced, or erased.
    pub value: Option<Bytes>,
    /// When the value's content was first written, where a store wrote it again under this later stamp; 0: just then.
    pub content_stamp: Stamp,
}

impl Entry {
    /// A write as it was made.
    pub fn new(writer: Writer, stamp: Stamp, value: Option<Bytes>) -> Entry {
        Entry { writer, stamp, value, content_stamp: Stamp::default() }
    }

    /// What is left of a write once its value is gone.
    pub fn seen(writer: Writer, stamp: Stamp) -> Entry {
        Entry::new(writer, stamp, None)
    }

    /// Lets the value go; that the write was seen stays.
    pub fn end(&mut self) {
        *self = Entry::seen(self.writer, self.stamp);
    }

    /// When the content was written, whoever wrote it again since.
    pub fn content_stamp(&self) -> Stamp {
        if self.content_stamp == Stamp::default() { self.stamp } else { self.content_stamp.min(self.stamp) }
    }

    /// The value, where it stands.
    pub fn live(&self) -> Option<(&Entry, &Bytes)> {
        self.value.as_ref().map(|value| (self, value))
    }
}

/// Everything known of one field: sorted by writer, one entry for each. The entries' stamps are what was seen; those
/// with a value are what stands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Register {
    entries: SmallVec<[Entry; 1]>,
}

impl Register {
    /// One write that nobody has seen anything before.
    pub fn single(writer: Writer, stamp: Stamp, value: Bytes) -> Register {
        Register { entries: SmallVec::from_elem(Entry::new(writer, stamp, Some(value)), 1) }
    }

    /// From entries in any order; of two of the same writer the later one stays.
    pub fn from_entries(entries: impl IntoIterator<Item = Entry>) -> Register {
        let mut entries: SmallVec<[Entry; 1]> = entries.into_iter().collect();
        entries.sort_by_key(|e| (e.writer, std::cmp::Reverse(e.stamp)));
        entries.dedup_by_key(|e| e.writer);
        Register { entries }
    }

    /// From entries known to be sorted by writer, one each.
    pub(crate) fn from_sorted(entries: SmallVec<[Entry; 1]>) -> Register {
        debug_assert!(entries.windows(2).all(|w| w[0].writer < w[1].writer));
        Register { entries }
    }

    /// All entries, by writer.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// All entries, for changes that keep them sorted.
    pub(crate) fn entries_mut(&mut self) -> &mut SmallVec<[Entry; 1]> {
        &mut self.entries
    }

    /// What stands: one entry, or siblings.
    pub fn live(&self) -> impl Iterator<Item = (&Entry, &Bytes)> {
        self.entries.iter().filter_map(Entry::live)
    }

    /// The latest stamp of `writer` that was taken in.
    pub fn seen(&self, writer: Writer) -> Option<Stamp> {
        self.position(writer).ok().map(|i| self.entries[i].stamp)
    }

    /// What stands of `writer` holds content of an earlier moment.
    pub(crate) fn written_since(&mut self, writer: Writer, content_stamp: Stamp) {
        if let Ok(i) = self.position(writer) {
            self.entries[i].content_stamp = content_stamp;
        }
    }

    /// Where `writer` stands, or would stand.
    pub(crate) fn position(&self, writer: Writer) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&writer, |e| e.writer)
    }
}

/// Everything known of one record.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record {
    fields: Vec<(FieldNumber, Register)>,
    /// Fields that this tier held and purged: only what was seen, for access checks. Never sent. An entry with a content
    /// stamp is a doubt: up to there it is sure.
    purged: Vec<(FieldNumber, Register)>,
}

/// What a store that was put back says of one of its own writers in one field. It may have gone on writing as that writer
/// before it was told, and whoever has that takes what the lost life wrote under earlier stamps for replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Doubt {
    /// Up to here there was one life only.
    pub sure: Stamp,
    /// The last stamp of that writer here.
    pub through: Stamp,
}

impl Record {
    /// From registers sorted by field.
    pub(crate) fn from_sorted(
        fields: Vec<(FieldNumber, Register)>,
        purged: Vec<(FieldNumber, Register)>,
    ) -> Record {
        debug_assert!(fields.windows(2).all(|w| w[0].0 < w[1].0));
        Record { fields, purged }
    }

    /// All registers, by field.
    pub fn fields(&self) -> &[(FieldNumber, Register)] {
        &self.fields
    }

    /// What was seen of fields that are no longer held.
    pub fn purged(&self) -> &[(FieldNumber, Register)] {
        &self.purged
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The register of a field, where it is held.
    pub fn get(&self, field: FieldNumber) -> Option<&Register> {
        self.fields.binary_search_by_key(&field, |f| f.0).ok().map(|i| &self.fields[i].1)
    }

    /// Replaces or adds the register of a field. What was purged of it is forgotten once all of that is back; doubts stay.
    pub fn set(&mut self, field: FieldNumber, register: Register) {
        if let Ok(i) = self.purged.binary_search_by_key(&field, |f| f.0)
            && self.purged[i].1.entries().iter().all(|e| register.seen(e.writer) >= Some(e.stamp))
        {
            self.purged[i].1.entries_mut().retain(|e| e.content_stamp > Stamp::default());
            if self.purged[i].1.entries().is_empty() {
                self.purged.remove(i);
            }
        }
        match self.fields.binary_search_by_key(&field, |f| f.0) {
            Ok(i) => self.fields[i].1 = register,
            Err(i) => self.fields.insert(i, (field, register)),
        }
    }

    /// Keeps the fields that `keep` allows; the others vanish without a trace, as in a projection for a peer.
    pub fn retain(&mut self, mut keep: impl FnMut(FieldNumber, &Register) -> bool) {
        self.fields.retain(|(field, register)| keep(*field, register));
    }

    /// Drops the local memory of purged fields, as before sending.
    pub fn forget_purged(&mut self) {
        self.purged.clear();
    }

    /// Purges a field: the values go, what was seen stays, locally.
    pub fn purge(&mut self, field: FieldNumber) {
        let Ok(i) = self.fields.binary_search_by_key(&field, |f| f.0) else { return };
        let (_, mut register) = self.fields.remove(i);
        register.entries_mut().iter_mut().for_each(Entry::end);
        self.remember_purged(field, &register);
    }

    /// Adds to what was seen of a purged field.
    fn remember_purged(&mut self, field: FieldNumber, seen: &Register) {
        let i = match self.purged.binary_search_by_key(&field, |f| f.0) {
            Ok(i) => i,
            Err(i) => {
                self.purged.insert(i, (field, Register::default()));
                i
            }
        };
        let known = &mut self.purged[i].1;
        for entry in seen.entries() {
            match known.position(entry.writer) {
                Ok(at) => {
                    let known = &mut known.entries[at];
                    known.stamp = known.stamp.max(entry.stamp);
                    let sure = [known.content_stamp, entry.content_stamp].into_iter();
                    known.content_stamp =
                        sure.filter(|sure| *sure > Stamp::default()).min().unwrap_or_default();
                }
                Err(at) => known.entries.insert(at, Entry { value: None, ..entry.clone() }),
            }
        }
    }

    /// Notes a doubt about a writer in a field; of an earlier one, what was less sure stays.
    pub(crate) fn doubt(&mut self, field: FieldNumber, writer: Writer, doubt: Doubt) {
        let content_stamp = doubt.sure.max(Stamp(1));
        let entry = Entry { content_stamp, ..Entry::seen(writer, doubt.through) };
        self.remember_purged(field, &Register::from_entries([entry]));
    }

    /// What is in doubt of a writer in a field.
    pub fn doubted(&self, field: FieldNumber, writer: Writer) -> Option<Doubt> {
        let entry = self.purged_entry(field, writer)?;
        let sure = entry.content_stamp;
        (sure > Stamp::default()).then_some(Doubt { sure, through: entry.stamp })
    }

    /// What came of a doubted writer up to `sure` is safe.
    pub(crate) fn settle(&mut self, field: FieldNumber, writer: Writer, sure: Stamp) {
        if let Ok(i) = self.purged.binary_search_by_key(&field, |f| f.0)
            && let Ok(at) = self.purged[i].1.position(writer)
        {
            let known = &mut self.purged[i].1.entries[at].content_stamp;
            *known = (*known).max(sure);
        }
    }

    fn purged_entry(&self, field: FieldNumber, writer: Writer) -> Option<&Entry> {
        let i = self.purged.binary_search_by_key(&field, |f| f.0).ok()?;
        let at = self.purged[i].1.position(writer).ok()?;
        Some(&self.purged[i].1.entries[at])
    }

    /// The latest stamp of `writer` that this node has taken in of a field, held or purged.
    pub fn had(&self, field: FieldNumber, writer: Writer) -> Option<Stamp> {
        let purged = self.purged_entry(field, writer).map(|entry| entry.stamp);
        self.get(field).and_then(|r| r.seen(writer)).max(purged)
    }
}
