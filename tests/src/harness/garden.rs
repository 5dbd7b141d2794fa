//! Texts that are like no others, planted in every field of records that can hold one: for tests that search byte by
//! byte for where they went, and know from the contract's rules where they may be.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use guantong_gateway::division::Tier;
use guantong_gateway::schema::effective_tier;
use guantong_proto::rules::{Field, Kind};
use guantong_proto::v1;

use super::division;

/// Where everything is planted.
pub const TOWNSHIP: &str = "220822101";
/// The camera's code.
pub const CAMERA: &str = "22082200001310000001";

/// A text that was planted, and where.
pub struct Planted {
    /// The record's name.
    pub record: String,
    /// The field's name.
    pub field: &'static str,
    rule: &'static Field,
    /// The text.
    pub text: String,
    /// The highest tier that the case was handed to: its file may be there, too.
    handed_to: Tier,
}

/// All that was planted.
#[derive(Default)]
pub struct Garden {
    /// In its order.
    pub planted: Vec<Planted>,
    /// The record that is planted in.
    pub record: String,
    /// How far it was handed.
    handed_to: Option<Tier>,
}

impl Garden {
    /// What is planted from now on is in this record.
    pub fn enter(&mut self, kind: &'static str, id: &str, handed_to: Tier) -> String {
        let home = division(TOWNSHIP);
        self.record = format!("divisions/{home}/{kind}s/{id}");
        self.handed_to = Some(handed_to);
        self.record.clone()
    }

    /// A text like no other, of digits only where it must look like a number.
    pub fn plant(&mut self, kind: &'static str, field: &'static str, digits: bool) -> String {
        let serial = self.planted.len() + 1;
        let text = if digits { format!("1397463{serial:04}") } else { format!("zqx{serial:04}Planted") };
        let rule = Kind::by_name(kind).unwrap().field_by_name(field).unwrap();
        let (record, handed_to) = (self.record.clone(), self.handed_to.unwrap());
        self.planted.push(Planted { record, field, rule, text: text.clone(), handed_to });
        text
    }

    /// A person.
    pub fn contact(&mut self, kind: &'static str, field: &'static str) -> v1::Contact {
        v1::Contact { name: self.plant(kind, field, false), telephone: self.plant(kind, field, true) }
    }

    fn reference(&mut self, kind: &'static str) -> Vec<v1::ExternalRef> {
        let number = self.plant(kind, "external_refs", false);
        vec![v1::ExternalRef { id: format!("office:{number}"), system: "office".into(), number, stamp: 0 }]
    }

    /// A grid, with all that it can hold.
    pub fn grid(&mut self) -> v1::Grid {
        v1::Grid {
            grid_code: Some("220822101000001".into()),
            division: Some(division(TOWNSHIP).to_string()),
            display_name: Some(self.plant("grid", "display_name", false)),
            contact: Some(self.contact("grid", "contact")),
            external_refs: self.reference("grid"),
            ..v1::Grid::default()
        }
    }

    /// A camera, likewise.
    pub fn camera(&mut self) -> v1::Camera {
        let filing = v1::Filing { number: self.plant("camera", "filing", false), ..v1::Filing::default() };
        v1::Camera {
            device_id: Some(CAMERA.into()),
            division: Some(division(TOWNSHIP).to_string()),
            ownership: Some(v1::CameraOwnership::Social.into()),
            display_name: Some(self.plant("camera", "display_name", false)),
            address: Some(self.plant("camera", "address", false)),
            pole_code: Some(self.plant("camera", "pole_code", false)),
            management_unit: Some(self.plant("camera", "management_unit", false)),
            maintenance_unit: Some(self.plant("camera", "maintenance_unit", false)),
            contact: Some(self.contact("camera", "contact")),
            filing: Some(filing),
            external_refs: self.reference("camera"),
            ..v1::Camera::default()
        }
    }

    /// What is known of a case when it comes.
    pub fn reported(&mut self) -> v1::Case {
        let party = v1::Party {
            role: v1::PartyRole::Applicant.into(),
            name: self.plant("case", "parties", false),
            telephone: self.plant("case", "parties", true),
        };
        v1::Case {
            case_kind: Some(v1::CaseKind::Dispute.into()),
            category: Some("neighbours".into()),
            division: Some(division(TOWNSHIP).to_string()),
            received_on: Some(v1::Date { year: 2026, month: 3, day: 1 }),
            title: Some(self.plant("case", "title", false)),
            narrative: Some(self.plant("case", "narrative", false)),
            address: Some(self.plant("case", "address", false)),
            parties: vec![party],
            external_refs: self.reference("case"),
            lifecycle: Some(v1::Lifecycle {
                state: v1::CaseState::Reported.into(),
                holder: division(TOWNSHIP).to_string(),
                ..v1::Lifecycle::default()
            }),
            ..v1::Case::default()
        }
    }

    /// What its holder adds.
    pub fn handled(&mut self) -> v1::Case {
        let note = v1::CaseNote {
            id: "note-1".into(),
            text: self.plant("case", "notes", false),
            ..v1::CaseNote::default()
        };
        v1::Case {
            mediator: Some(self.contact("case", "mediator")),
            reply: Some(v1::Reply { text: self.plant("case", "reply", false), ..v1::Reply::default() }),
            notes: vec![note],
            ..v1::Case::default()
        }
    }
}

impl Garden {
    /// The texts that stand in these bytes.
    pub fn found(&self, bytes: &[u8]) -> BTreeSet<&str> {
        let texts = self.planted.iter().map(|planted| &*planted.text);
        texts.filter(|text| occurs(bytes, text)).collect()
    }

    /// The texts that a node of this tier may hold, where cases of these names are sealed.
    pub fn allowed(&self, tier: Tier, sealed: impl Fn(&str) -> bool) -> BTreeSet<&str> {
        let may = |planted: &&Planted| planted.may_be_at(tier, sealed(&planted.record));
        self.planted.iter().filter(may).map(|planted| &*planted.text).collect()
    }

    /// The records that something was planted in, each with the fields.
    pub fn beds(&self) -> Vec<(&str, BTreeSet<&str>)> {
        let records: BTreeSet<&str> = self.planted.iter().map(|planted| &*planted.record).collect();
        let fields = |record| self.planted.iter().filter(move |p| p.record == record).map(|p| p.field);
        records.into_iter().map(|record| (record, fields(record).collect())).collect()
    }
}

impl Planted {
    /// Whether a node of this tier may hold it.
    fn may_be_at(&self, tier: Tier, sealed: bool) -> bool {
        let within = tier <= effective_tier(self.rule.release, division(TOWNSHIP));
        within || self.rule.file && !sealed && tier <= self.handed_to
    }
}

/// Whether a text stands in these bytes.
pub fn occurs(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// What a node's store is kept in: unused bytes, logs and what is set aside are searched with it.
pub const STORE: [&str; 5] = [".sqlite", ".db", "-wal", "-shm", "-journal"];

/// Everything in a folder and the folders inside it, whose names end so; without an ending, all.
pub fn contents(folder: &Path, endings: &[&str]) -> Vec<u8> {
    let mut all = Vec::new();
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if endings.is_empty() || endings.iter().any(|ending| name.ends_with(ending)) {
                // Sockets cannot be read; files of the store may go while they are looked at.
                all.extend(std::fs::read(&path).unwrap_or_default());
            }
        }
    }
    all
}
