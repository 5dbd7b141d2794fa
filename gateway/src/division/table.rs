//! The names of divisions known to a node: the embedded table, and over it what was imported, renamed or
//! retired.
//!
//! It answers people's questions (names, lists, full names). It must never decide scope, audience or release:
//! those follow from the digits alone (see [`Division`]), since no two nodes need hold the same table.

use super::{Division, Tier};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// The rows of `data/divisions.csv`, compressed by the build script, which has checked their form and order.
static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/divisions.csv.zst"));

/// One division as it is imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DivisionEntry {
    /// The division.
    pub code: Division,
    /// Its own name, without those of the divisions around it.
    pub name: String,
    /// False once it is retired: its name still resolves, for old records, but it is no longer listed.
    pub active: bool,
}

/// Sorted codes, and for each the end of its name in one string. About one MiB in memory.
#[derive(Debug, Default)]
struct Base {
    codes: Vec<Division>,
    name_ends: Vec<u32>,
    names: String,
}

impl Base {
    fn shared() -> &'static Base {
        static BASE: OnceLock<Base> = OnceLock::new();
        // The bytes are a part of this program and a test reads them all, so a failure here is a damaged
        // program file. Codes without names are then the mildest outcome: no decision depends on this table.
        BASE.get_or_init(|| Base::unpack(PACKED).unwrap_or_default())
    }

    fn unpack(packed: &[u8]) -> Option<Base> {
        let text = String::from_utf8(zstd::decode_all(packed).ok()?).ok()?;
        let mut base = Base::default();
        for row in text.lines().skip(1) {
            let (code, name) = row.split_once(',')?;
            base.codes.push(Division::parse(code).ok()?);
            base.names.push_str(name);
            base.name_ends.push(u32::try_from(base.names.len()).ok()?);
        }
        base.codes.shrink_to_fit();
        base.name_ends.shrink_to_fit();
        base.names.shrink_to_fit();
        Some(base)
    }

    fn name(&self, code: Division) -> Option<&str> {
        let at = self.codes.binary_search(&code).ok()?;
        let start = match at.checked_sub(1) {
            Some(before) => *self.name_ends.get(before)? as usize,
            None => 0,
        };
        self.names.get(start..*self.name_ends.get(at)? as usize)
    }

    /// The first code not less than `from`.
    fn first_from(&self, from: u64) -> Option<Division> {
        let at = self.codes.partition_point(|code| code.code() < from);
        self.codes.get(at).copied()
    }
}

#[derive(Clone, Debug)]
struct Changed {
    name: Arc<str>,
    active: bool,
}

/// The divisions known to a node. The embedded part is shared by all; a clone copies only the overlay.
#[derive(Clone, Debug)]
pub struct Divisions {
    base: &'static Base,
    overlay: BTreeMap<Division, Changed>,
    /// Codes of the overlay that the embedded table does not have.
    added: usize,
}

impl Default for Divisions {
    fn default() -> Self {
        Divisions::embedded()
    }
}

impl Divisions {
    /// The embedded table alone: every division of mainland China down to township, as of 2023-06-30. The
    /// first call unpacks it (some milliseconds); later ones are free.
    pub fn embedded() -> Divisions {
        Divisions { base: Base::shared(), overlay: BTreeMap::new(), added: 0 }
    }

    /// Adds, renames, retires or brings back a division. An empty name keeps the one that was there.
    pub fn insert(&mut self, entry: DivisionEntry) {
        let name =
            if entry.name.is_empty() { self.name(entry.code).unwrap_or_default() } else { &entry.name };
        let changed = Changed { name: Arc::from(name), active: entry.active };
        if self.overlay.insert(entry.code, changed).is_none() && self.base.name(entry.code).is_none() {
            self.added += 1;
        }
    }

    /// How many divisions are known, retired ones included.
    pub fn len(&self) -> usize {
        self.base.codes.len() + self.added
    }

    /// Whether nothing at all is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The division's own name; retired ones keep theirs.
    pub fn name(&self, code: Division) -> Option<&str> {
        match self.overlay.get(&code) {
            Some(changed) => Some(&changed.name),
            None => self.base.name(code),
        }
    }

    /// Whether the division is in the table, active or retired.
    pub fn known(&self, code: Division) -> bool {
        self.overlay.contains_key(&code) || self.base.codes.binary_search(&code).is_ok()
    }

    /// Whether the division is in the table and not retired.
    pub fn active(&self, code: Division) -> bool {
        match self.overlay.get(&code) {
            Some(changed) => changed.active,
            None => self.base.codes.binary_search(&code).is_ok(),
        }
    }

    /// The active divisions directly below, in the order of their codes. What is missing in between is passed
    /// over: the children of Dongguan (441900) are its townships. So are retired divisions and
    /// pseudo-prefectures: the children of Beijing are its districts, those of Henan its prefectures and
    /// Jiyuan. Asked for a pseudo-prefecture itself, it gives that one's counties.
    pub fn children(&self, code: Division) -> Vec<(Division, &str)> {
        let mut children = Vec::new();
        let mut from = code.code() + 1;
        while let Some(next) = self.first_from(from).filter(|next| code.contains(*next)) {
            if self.active(next) && !next.is_pseudo_prefecture() {
                children.push((next, self.name(next).unwrap_or_default()));
                from = next.last_code() + 1;
            } else {
                from = next.code() + 1;
            }
        }
        children
    }

    /// Whether any active village of this township has been imported; the embedded table has none.
    pub fn villages_known(&self, township: Division) -> bool {
        self.active_villages(township).next().is_some()
    }

    /// The active villages of this township, in the order of their codes.
    pub fn villages(&self, township: Division) -> Vec<(Division, &str)> {
        self.active_villages(township).collect()
    }

    /// The active village units in a division of any tier, in the order of their codes; none where no list is loaded.
    pub fn villages_in(&self, division: Division) -> impl Iterator<Item = Division> + '_ {
        self.active_villages(division).map(|(code, _)| code)
    }

    /// The name with those of the divisions around it, as it is written in an address: 吉林省白城市通榆县瞻榆镇. Unknown
    /// divisions and pseudo-prefectures are left out; where the division itself is unknown its code stands
    /// for its name.
    pub fn full_name(&self, code: Division) -> String {
        let mut around: Vec<Division> = code.enclosing().collect();
        around.reverse();
        let mut full = String::new();
        for division in around {
            match self.name(division) {
                Some(_) if division.is_pseudo_prefecture() && division != code => {}
                Some(name) => full.push_str(name),
                None if division == code => full.push_str(&code.to_string()),
                None => {}
            }
        }
        full
    }

    fn active_villages(&self, township: Division) -> impl Iterator<Item = (Division, &str)> {
        let inside = self.overlay.range(township..).take_while(move |(code, _)| township.contains(**code));
        let active = inside.filter(|(code, changed)| changed.active && code.tier() == Tier::Village);
        active.map(|(code, changed)| (*code, &*changed.name))
    }

    fn first_from(&self, from: u64) -> Option<Division> {
        // Only a bound for the search: such a number need not have the form of a division.
        let overlay = self.overlay.range(Division(from)..).next().map(|(code, _)| *code);
        self.base.first_from(from).into_iter().chain(overlay).min()
    }
}
