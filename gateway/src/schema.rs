//! The rules of every kind and field, as the contract's field options state them. The engine knows no field by itself:
//! adding a kind or a field is an edit of a `.proto`.
//!
//! A few fields have a part in the protocol (a case's `steps`, `lifecycle` and `sealed`, `record_complete`); they
//! are found by name, and a kind without them simply does without their behaviour.

use guantong_proto::{rules, v1};

use crate::division::{Division, Tier};
use crate::record::FieldNumber;

/// Number of a kind, fixed in the contract for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KindId(pub u32);

/// Fields that have a part in the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// The way of a case: its audience.
    pub steps: Option<FieldNumber>,
    /// State and holder of a case.
    pub lifecycle: Option<FieldNumber>,
    /// Ends the special release of file fields.
    pub sealed: Option<FieldNumber>,
    /// Whether every required field is there; written by the home's node.
    pub record_complete: Option<FieldNumber>,
    /// Hides the record from lists.
    pub deleted: Option<FieldNumber>,
    /// What was erased of the record.
    pub erased: Option<FieldNumber>,
}

/// One kind, as this node knows it.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Its number.
    pub id: KindId,
    /// Its rule in the contract.
    pub rule: &'static rules::Kind,
    /// Its fields that have a part in the protocol.
    pub roles: Roles,
    by_number: Vec<Option<&'static rules::Field>>,
}

impl Kind {
    fn new(rule: &'static rules::Kind, known: impl Fn(&rules::Field) -> bool) -> Kind {
        let fields = || rule.fields.iter().filter(|f| known(f));
        let size = fields().map(|f| f.number as usize + 1).max().unwrap_or(0);
        let mut by_number = vec![None; size];
        for field in fields() {
            by_number[field.number as usize] = Some(field);
        }
        let named = |name: &str| fields().find(|f| f.name == name).map(|f| f.number);
        let roles = Roles {
            steps: named("steps"),
            lifecycle: named("lifecycle"),
            sealed: named("sealed"),
            record_complete: named("record_complete"),
            deleted: named("deleted"),
            erased: named("erased"),
        };
        Kind { id: KindId(rule.number), rule, roles, by_number }
    }

    /// The rule of a field; `None`: this node does not know it.
    pub fn field(&self, number: FieldNumber) -> Option<&'static rules::Field> {
        self.by_number.get(number as usize).copied().flatten()
    }

    /// The fields that are known, by number.
    pub fn fields(&self) -> impl Iterator<Item = &'static rules::Field> + '_ {
        self.by_number.iter().copied().flatten()
    }

    /// The rule of a field by its name in the contract.
    pub fn field_named(&self, name: &str) -> Option<&'static rules::Field> {
        self.fields().find(|f| f.name == name)
    }

    /// The fields derived from `source`.
    pub fn derived_from(&self, source: FieldNumber) -> impl Iterator<Item = &'static rules::Field> + '_ {
        self.fields().filter(move |f| f.derived_from == Some(source))
    }
}

/// All kinds that a node knows.
#[derive(Clone, Debug)]
pub struct Schema {
    kinds: Vec<Kind>,
    fingerprint: [u8; 16],
}

impl Schema {
    /// The schema this program was built with.
    pub fn current() -> Schema {
        Schema::with_fields(|_, _| true)
    }

    /// The same without some fields, as an older or newer program would know it: for tests of mixed trees.
    pub fn with_fields(known: impl Fn(&rules::Kind, &rules::Field) -> bool) -> Schema {
        let kinds: Vec<Kind> = rules::KINDS.iter().map(|rule| Kind::new(rule, |f| known(rule, f))).collect();
        let mut hash = blake3::Hasher::new();
        for kind in &kinds {
            hash.update(format!("kind {} {:?}\n", kind.rule.name, kind.rule.audience).as_bytes());
            for f in kind.fields() {
                let rule =
                    (f.number, f.policy, f.owner, f.writers, f.release, f.file, f.lane, f.derived_from);
                hash.update(format!("{rule:?}\n").as_bytes());
            }
        }
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&hash.finalize().as_bytes()[..16]);
        Schema { kinds, fingerprint }
    }

    /// Hash over all rules: equal means the same behaviour.
    pub fn fingerprint(&self) -> [u8; 16] {
        self.fingerprint
    }

    /// All kinds.
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// A kind by its number. Ids are only made by this schema; one of another program falls back to the first kind.
    pub fn kind(&self, id: KindId) -> &Kind {
        self.kinds.iter().find(|k| k.id == id).unwrap_or(&self.kinds[0])
    }

    /// A kind by its name: `case`.
    pub fn kind_named(&self, name: &str) -> Option<&Kind> {
        self.kinds.iter().find(|k| k.rule.name == name)
    }

    /// A kind by its collection: `cases`.
    pub fn kind_of_collection(&self, collection: &str) -> Option<KindId> {
        self.kinds.iter().find(|k| k.rule.collection == collection).map(|k| k.id)
    }

    /// The table that a greeting carries.
    pub fn rule_table(&self) -> v1::RuleTable {
        let kinds = self.kinds.iter().map(|kind| v1::KindRules {
            kind: kind.rule.name.into(),
            fields: kind.fields().map(|f| f.number).collect(),
        });
        v1::RuleTable { fingerprint: self.fingerprint.to_vec().into(), kinds: kinds.collect() }
    }
}

/// The tier that a rule means for records of `home`: where there is no county, what is said of the county holds for
/// the prefecture.
pub fn effective_tier(tier: rules::Tier, home: Division) -> Tier {
    match tier {
        rules::Tier::Township => Tier::Township,
        rules::Tier::County if home.has_county_tier() => Tier::County,
        rules::Tier::County | rules::Tier::Prefecture => Tier::Prefecture,
        rules::Tier::Province => Tier::Province,
    }
}

/// A tier as messages say it. Villages have no nodes, and so no tier there.
pub fn contract_tier(tier: Tier) -> v1::Tier {
    match tier {
        Tier::Village => v1::Tier::Unspecified,
        Tier::Township => v1::Tier::Township,
        Tier::County => v1::Tier::County,
        Tier::Prefecture => v1::Tier::Prefecture,
        Tier::Province => v1::Tier::Province,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_carries_the_roles_of_a_case() {
        let schema = Schema::current();
        let case = schema.kind_named("case").unwrap();
        assert!(case.roles.steps.is_some() && case.roles.lifecycle.is_some() && case.roles.sealed.is_some());
        assert!(schema.kinds().iter().all(|k| k.roles.record_complete.is_some() || k.rule.name == "node"));
        assert_eq!(schema.kind_of_collection("cases"), Some(case.id));
    }

    #[test]
    fn fewer_fields_are_another_fingerprint() {
        let older = Schema::with_fields(|kind, field| (kind.name, field.name) != ("case", "risk"));
        assert_ne!(older.fingerprint(), Schema::current().fingerprint());
        assert!(older.kind_named("case").unwrap().field_named("risk").is_none());
    }

    #[test]
    fn without_a_county_the_prefecture_stands_in() {
        let township = Division::parse("441900003").unwrap();
        assert_eq!(effective_tier(rules::Tier::County, township), Tier::Prefecture);
        assert_eq!(effective_tier(rules::Tier::County, Division::parse("220822101").unwrap()), Tier::County);
    }
}
