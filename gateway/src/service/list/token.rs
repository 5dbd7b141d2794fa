//! Where a list stands, as text inside a page token.

use crate::store::Position;

/// The way, by its place among the ways of the query, and where it stands; `None`: at its beginning.
pub(super) fn write(stage: usize, at: Option<&Position>) -> String {
    let at = match at {
        Some(Position::Name(home, id)) => format!("n.{home}.{id}"),
        Some(Position::Facet(value, home, key)) => format!("f.{value}.{home}.{key}"),
        Some(Position::Updated(at_ms, key)) => format!("u.{at_ms}.{key}"),
        None => "s".into(),
    };
    format!("{stage}.{at}")
}

/// What `write` has written; `None`: it has not.
pub(super) fn read(text: &str) -> Option<(usize, Option<Position>)> {
    let (stage, at) = text.split_once('.')?;
    let stage = stage.parse().ok()?;
    let number = |text: &str| text.parse::<i64>().ok();
    let at = match at.split_once('.') {
        None if at == "s" => None,
        Some(("n", at)) => {
            let (home, id) = at.split_once('.')?;
            Some(Position::Name(number(home)?, id.to_owned()))
        }
        Some((way, at)) => match (way, at.split('.').map(number).collect::<Option<Vec<i64>>>()?[..].as_ref())
        {
            ("f", [value, home, key]) => Some(Position::Facet(*value, *home, *key)),
            ("u", [at_ms, key]) => Some(Position::Updated(*at_ms, *key)),
            _ => return None,
        },
        None => return None,
    };
    Some((stage, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(stage in 0usize..60, a in any::<i64>(), b in any::<i64>(), c in any::<i64>(), id in ".*") {
            let positions = [
                None,
                Some(Position::Name(a, id)),
                Some(Position::Facet(a, b, c)),
                Some(Position::Updated(a, b)),
            ];
            for at in positions {
                prop_assert_eq!(read(&write(stage, at.as_ref())), Some((stage, at)));
            }
        }

        #[test]
        fn anything_else_is_no_place(text in ".*") {
            if let Some((stage, at)) = read(&text) {
                prop_assert_eq!(read(&write(stage, at.as_ref())), Some((stage, at)));
            }
        }
    }
}
