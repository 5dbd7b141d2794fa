//! Which nodes there are, and which places records are spread over. It follows from the table of divisions alone.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use guantong_gateway::division::{Division, Divisions, Tier};

/// The villages that come with the program.
pub(super) const EMBEDDED_VILLAGES: &str = include_str!("../../../deploy/demo/villages-sample.csv");
/// More processes than this do not fit a small machine.
const NODES_MAX: usize = 400;

/// A place where something can stand or happen: a village where a list is at hand, else a township as a whole.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) code: Division,
    pub(super) township: Division,
    pub(super) name: String,
    /// How much of everything it gets, compared with others.
    pub(super) weight: u64,
}

impl Place {
    /// Whether it lies in a town or township, not in a subdistrict.
    pub(super) fn is_rural(&self) -> bool {
        township_group(self.township) >= 100
    }
}

/// The third group of digits: 001 to 099 subdistricts, 100 to 199 towns, 200 to 399 townships, above them quasi ones.
pub(super) fn township_group(township: Division) -> u64 {
    township.code() / 1_000 % 1_000
}

/// The fourth group of digits: 001 to 199 residents' committees, 200 to 399 villagers' committees.
pub(super) fn village_group(village: Division) -> u64 {
    village.code() % 1_000
}

/// A village to be made known to the nodes.
#[derive(Clone, Debug)]
pub(super) struct Village {
    pub(super) code: Division,
    pub(super) name: String,
}

/// The demonstration's tree.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// What is shown.
    pub(super) division: Division,
    /// The top of the tree, where everything arrives.
    pub(super) top: Division,
    /// Every node below the top with its parent, from the top down.
    pub(super) nodes: Vec<(Division, Division)>,
    /// Townships that have no node: the one above acts for them.
    pub(super) acted_for: Vec<Division>,
    /// Villages that were found in the list.
    pub(super) villages: Vec<Village>,
    /// Where records are put.
    pub(super) places: Vec<Place>,
    divisions: Divisions,
}

impl Plan {
    /// A node for every division around and inside `division` that has a government; without `townships`, none for
    /// those.
    ///
    /// # Errors
    /// The division is not in the table, or has no townships or too many.
    pub(super) fn new(division: Division, townships: bool, villages: &str) -> Result<Plan> {
        let divisions = Divisions::embedded();
        let known = divisions.known(division) && division.tier() > Tier::Village;
        if !known {
            bail!(
                "{division} is not in the table of divisions; look it up with: guantong divisions find NAME (区划不存在)"
            );
        }
        let around: Vec<Division> = division.enclosing().filter(|d| !d.is_pseudo_prefecture()).collect();
        let top = *around.last().context("every division lies in a province")?;
        let mut plan = Plan {
            division,
            top,
            nodes: Vec::new(),
            acted_for: Vec::new(),
            villages: Vec::new(),
            places: Vec::new(),
            divisions,
        };
        let mut parent = top;
        for inner in around.iter().rev().skip(1) {
            parent = plan.add(parent, *inner, townships);
        }
        plan.add_below(parent, division, townships);
        plan.find_places(villages)?;
        let count = plan.nodes.len() + 1;
        if count > NODES_MAX {
            bail!(
                "{division} would need {count} nodes on this machine; choose a prefecture or a county (节点过多)"
            );
        }
        Ok(plan)
    }

    /// Adds a node, or notes that its parent acts for it. Returns the node that what lies inside hangs on.
    fn add(&mut self, parent: Division, division: Division, townships: bool) -> Division {
        if division.tier() == Tier::Township && !townships {
            self.acted_for.push(division);
            return parent;
        }
        self.nodes.push((division, parent));
        division
    }

    fn add_below(&mut self, parent: Division, division: Division, townships: bool) {
        let below: Vec<Division> = self.divisions.children(division).iter().map(|(code, _)| *code).collect();
        for child in below.into_iter().filter(|child| child.tier() > Tier::Village) {
            let node = self.add(parent, child, townships);
            self.add_below(node, child, townships);
        }
    }

    fn find_places(&mut self, list: &str) -> Result<()> {
        let mut by_township: BTreeMap<Division, Vec<Village>> = BTreeMap::new();
        for village in villages(list)? {
            by_township.entry(village.code.home()).or_default().push(village);
        }
        let townships: Vec<Division> = self.townships();
        if townships.is_empty() {
            bail!("{} has no townships in the table of divisions (没有乡级区划)", self.division);
        }
        let listed: usize = townships.iter().filter_map(|t| by_township.get(t)).map(Vec::len).sum();
        let with_list = townships.iter().filter(|t| by_township.contains_key(t)).count();
        // A township without a list counts as one of middling size.
        let middling = listed.checked_div(with_list).unwrap_or(1).max(1) as u64;
        for township in townships {
            let found = by_township.remove(&township).unwrap_or_default();
            if found.is_empty() {
                let name = self.name(township);
                self.places.push(Place { code: township, township, name, weight: middling });
            }
            for village in found {
                let Village { code, name } = village.clone();
                self.places.push(Place { code, township, name, weight: 1 });
                self.villages.push(village);
            }
        }
        Ok(())
    }

    /// All townships that have a node or are acted for, by code.
    pub(super) fn townships(&self) -> Vec<Division> {
        let nodes = self.nodes.iter().map(|(division, _)| *division);
        let mut townships: Vec<Division> =
            nodes.chain(self.acted_for.iter().copied()).filter(|d| d.tier() == Tier::Township).collect();
        townships.sort_unstable();
        townships
    }

    /// A division's own name, or its code where it has none.
    pub(super) fn name(&self, division: Division) -> String {
        self.divisions.name(division).map_or_else(|| division.to_string(), str::to_owned)
    }

    /// A division's name with those around it.
    pub(super) fn full_name(&self, division: Division) -> String {
        self.divisions.full_name(division)
    }
}

/// Reads a list of villages: the columns `code` and `name`, and whatever others.
fn villages(list: &str) -> Result<Vec<Village>> {
    #[derive(serde::Deserialize)]
    struct Row {
        code: String,
        name: String,
    }
    let mut reader = csv::Reader::from_reader(list.trim_start_matches('\u{feff}').as_bytes());
    let mut found = Vec::new();
    for (row, line) in reader.deserialize::<Row>().zip(2..) {
        let row =
            row.context("a list of villages has the columns code and name (村级名录需有 code、name 两列)")?;
        let code =
            Division::parse(&row.code).with_context(|| format!("line {line} of the list of villages"))?;
        if code.tier() == Tier::Village {
            found.push(Village { code, name: row.name });
        }
    }
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn plan(code: &str, townships: bool) -> Plan {
        Plan::new(Division::parse(code).unwrap(), townships, EMBEDDED_VILLAGES).unwrap()
    }

    fn at(code: &str) -> Division {
        Division::parse(code).unwrap()
    }

    #[test]
    fn a_county_has_the_nodes_around_and_inside_it() {
        let county = plan("220822", true);
        assert_eq!((county.top, county.nodes.len()), (at("22"), 24));
        assert_eq!(county.nodes[..2], [(at("2208"), at("22")), (at("220822"), at("2208"))]);
        assert!(county.nodes[2..].iter().all(|(_, parent)| *parent == at("220822")));
        assert_eq!((county.places.len(), county.villages.len()), (205, 205));
    }

    #[test]
    fn without_township_nodes_the_county_acts() {
        let county = plan("220822", false);
        assert_eq!((county.nodes.len(), county.acted_for.len(), county.townships().len()), (2, 22, 22));
    }

    #[test]
    fn a_prefecture_has_all_its_counties() {
        let dali = plan("5329", true);
        assert_eq!(dali.nodes.len(), 1 + 12 + 112);
        let parent = |child: &str| dali.nodes.iter().find(|(node, _)| *node == at(child)).map(|n| n.1);
        assert_eq!((parent("532901"), parent("5329")), (Some(at("5329")), Some(at("53"))));
    }

    #[test]
    fn missing_tiers_are_left_out() {
        let dongguan = plan("441900", true);
        assert_eq!(dongguan.nodes[0], (at("4419"), at("44")));
        assert!(dongguan.nodes[1..].iter().all(|n| n.1 == at("4419") && n.0.tier() == Tier::Township));
        assert_eq!(
            dongguan.places.len(),
            dongguan.nodes.len() - 1,
            "no village list: townships are the places"
        );
        let jiyuan = plan("419001", true);
        assert_eq!(jiyuan.nodes[0], (at("419001"), at("41")));
        let directly_governed = plan("4690", true);
        assert!(directly_governed.nodes.contains(&(at("469001"), at("46"))));
        assert!(!directly_governed.nodes.iter().any(|n| n.0 == at("4690")));
    }

    #[test]
    fn a_township_stands_alone() {
        let one = plan("220822101", true);
        assert_eq!(
            one.nodes,
            [(at("2208"), at("22")), (at("220822"), at("2208")), (at("220822101"), at("220822"))]
        );
        assert_eq!(one.townships(), [at("220822101")]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (code, words) in [("220899", "not in the table"), ("22", "nodes on this machine")] {
            let error = Plan::new(at(code), true, "code,name\n").unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
