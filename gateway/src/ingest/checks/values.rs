//! Numbers of enums, wherever in a field they stand: whoever writes here says what this program can read.
//!
//! Never asked of links: a newer program may know more values, and what it wrote is kept as it is.

use std::fmt::Write as _;

use guantong_proto::rules::{Content, Enum};

use super::{Checker, Violation};
use crate::record::raw::{self, Payload};

/// Numbers that are named in one field; whoever writes more of them has seen enough.
const NAMED_MAX: usize = 5;

/// A number that no value has, and where in the field it stands.
struct Unknown {
    part: String,
    number: i64,
    of: &'static Enum,
}

pub(super) fn check(c: &mut Checker<'_>) {
    for number in c.s.written {
        let rule = c.s.kind.field(*number).filter(|rule| rule.content != Content::Plain);
        let (Some(rule), Some(value)) = (rule, c.fresh(*number)) else { continue };
        let mut found = Vec::new();
        look(rule.content, rule.repeated, raw::payloads(&value), "", &mut found);
        for Unknown { part, number: unknown, of } in found {
            let detail = format!(
                "{} ({}{part}): {unknown} is no value of it; known are {} (取值不存在，请填写已有的取值)",
                rule.label,
                rule.name,
                known(of)
            );
            c.found.push(Violation::UnknownValue { field: *number, part, detail });
        }
    }
}

/// Looks through what stands at `path`, entry by entry where there may be several.
fn look<'v>(
    content: Content,
    repeated: bool,
    payloads: impl Iterator<Item = Payload<'v>>,
    path: &str,
    found: &mut Vec<Unknown>,
) {
    let mut place = 0;
    for payload in payloads {
        let at = |n: usize| if repeated { format!("{path}[{n}]") } else { path.to_owned() };
        match content {
            Content::Plain => return,
            Content::Enum(of) => {
                for number in payload.numbers() {
                    let number = number as i64;
                    if found.len() < NAMED_MAX && !i32::try_from(number).is_ok_and(|n| of.contains(n)) {
                        found.push(Unknown { part: at(place), number, of });
                    }
                    place += 1;
                }
            }
            Content::Message(parts) => {
                let message = payload.bytes().unwrap_or_default();
                for part in parts {
                    let inside = format!("{}.{}", at(place), part.name);
                    look(part.content, part.repeated, raw::occurrences(message, part.number), &inside, found);
                }
                place += 1;
            }
        }
    }
}

/// The values that say something: number, name and label of each.
fn known(of: &Enum) -> String {
    let mut text = String::new();
    for value in of.values.iter().filter(|value| value.number != 0) {
        let between = if text.is_empty() { "" } else { ", " };
        // Writing into a text does not fail.
        let _ = write!(text, "{between}{} {} {}", value.number, value.name, value.label);
    }
    text
}
