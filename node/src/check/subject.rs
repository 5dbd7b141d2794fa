//! What a line is about: a measure of the catalogue, whole or in one class. Published tables name some of them
//! otherwise; what is not known here has no subject.

use guantong_gateway::measure::{Class, Dimension, Formula, MEASURES, Measure};

use crate::ledger::half_width;

/// A measure, whole or in one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) measure: &'static Measure,
    pub(crate) class: Option<(Dimension, Class)>,
}

/// Pairs of measure and class as counties publish them, in words of the catalogue: measure, dimension, class.
const PUBLISHED: [(&str, &str, &str, &str, &str); 7] = [
    ("grids", "all", "grids", "", ""),
    ("staff", "chief", "staff", "staff_kind", "chief"),
    ("cameras", "connected", "cameras_connected", "", ""),
    ("cases", "dispute", "cases_received", "case_kind", "dispute"),
    ("cases", "incident", "cases_received", "case_kind", "incident"),
    ("cases", "dispute_succeeded", "cases_succeeded", "case_kind", "dispute"),
    ("rates", "success", "success_rate", "case_kind", "dispute"),
];

/// Counts of which the first is a part of the second, always.
const PARTS: [(&str, &str); 8] = [
    ("grids", "grids_registered"),
    ("villages_covered", "villages"),
    ("cases_succeeded", "cases_concluded"),
    ("cases_overdue", "cases_open"),
    ("cameras_online", "cameras"),
    ("cameras_faulty", "cameras"),
    ("cameras_connected", "cameras"),
    ("cameras_filed", "cameras"),
];

impl Subject {
    /// What is meant; `None`: nothing that is known.
    pub(crate) fn named(measure: &str, class: &str) -> Option<Subject> {
        let (measure, class) = (tidy(measure), tidy(class));
        let published = PUBLISHED.iter().find(|known| known.0 == measure && known.1 == class);
        if let Some((_, _, measure, dimension, class)) = published {
            let measure = Measure::named(measure)?;
            let class = match Dimension::named(dimension) {
                None => None,
                Some(dimension) => Some((dimension, class_of(dimension, class)?)),
            };
            return Some(Subject { measure, class });
        }
        let measure = MEASURES.iter().find(|known| known.name == measure || known.label == measure)?;
        if class.is_empty() {
            return Some(Subject { measure, class: None });
        }
        let dimensions = measure.dimensions();
        let mut found =
            dimensions.iter().filter_map(|dimension| Some((*dimension, class_of(*dimension, &class)?)));
        let class = found.next()?;
        // A class that two dimensions have could be either.
        found.next().is_none().then_some(Subject { measure, class: Some(class) })
    }

    /// As people call it.
    pub(crate) fn label(&self) -> String {
        match self.class {
            Some((_, class)) => format!("{}（{}）", self.measure.label, class.label),
            None => self.measure.label.to_owned(),
        }
    }

    /// Whether it is a part of `other`, in the same division and period.
    pub(crate) fn is_part_of(&self, other: &Subject) -> bool {
        let same = self.measure.name == other.measure.name;
        if same {
            return self.class.is_some() && other.class.is_none();
        }
        self.class.map(of) == other.class.map(of)
            && PARTS.iter().any(|(part, whole)| self.measure.name == *part && other.measure.name == *whole)
    }

    /// What a rate is a part of, and what part: names of counts, the usual basis first. Empty: not a single count.
    pub(crate) fn counts_of_rate(&self) -> (&'static str, Vec<&'static str>) {
        match (self.measure.name, self.measure.formula) {
            // Which basis a report means, it seldom says.
            ("success_rate", _) => ("cases_succeeded", vec!["cases_concluded", "cases_received"]),
            (_, Formula::Rate { numerator: [(1, part)], denominator: [(1, whole)], .. }) => {
                (part.name(), vec![whole.name()])
            }
            _ => ("", Vec::new()),
        }
    }

    /// Whether its rate is a share: never above the whole.
    pub(crate) fn is_share(&self) -> bool {
        self.measure.is_rate() && self.measure.name != "success_rate_received"
    }
}

/// What tells two classes apart.
pub(crate) fn of((dimension, class): (Dimension, Class)) -> (Dimension, u16) {
    (dimension, class.number)
}

fn class_of(dimension: Dimension, name: &str) -> Option<Class> {
    dimension.classes().into_iter().find(|class| class.name == name || class.label == name)
}

fn tidy(text: &str) -> String {
    half_width(text.trim()).trim().to_owned()
}
