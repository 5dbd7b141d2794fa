//! Cells as spreadsheets write them: full-width digits, guards against formulas, lists in one cell. It must never
//! change what a free text says.

use std::borrow::Cow;

/// Separators of a list in one cell. In a text they are written with a backslash before them.
const SEPARATORS: [char; 7] = ['、', '；', ';', '，', ',', '\n', '|'];

/// ASCII for its full-width forms (`１２３，：`) and a plain blank for wide ones.
pub(crate) fn half_width(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let narrow = |c: char| match c {
        '\u{3000}' | '\u{a0}' => ' ',
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
        other => other,
    };
    Cow::Owned(text.chars().map(narrow).collect())
}

/// A header as it is compared: without blanks, case, joining marks, and what forms add to say "mandatory".
pub(crate) fn header_key(header: &str) -> String {
    let key: String = half_width(header)
        .chars()
        .filter(|c| !c.is_whitespace() && !c.is_control() && !"_-.*\"'\u{feff}".contains(*c))
        .flat_map(char::to_lowercase)
        .collect();
    let key = key.strip_suffix("(必填)").or(key.strip_suffix("(选填)")).unwrap_or(&key);
    key.to_owned()
}

/// A cell's content: outer blanks, the spreadsheet's own marks for text (`="0436"`, `'0436`) and our guard removed.
pub(super) fn content(cell: &str) -> &str {
    let cell = cell.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    if let Some(inner) = cell.strip_prefix("=\"").and_then(|rest| rest.strip_suffix('"')) {
        return inner.trim();
    }
    match cell.strip_prefix('\'') {
        Some(rest) if rest.starts_with(is_guarded) || rest.starts_with(|c: char| c.is_ascii_digit()) => rest,
        _ => cell,
    }
}

/// A cell for a file that a spreadsheet will open: what it would run as a formula is guarded by an apostrophe, which
/// [`content`] takes away again. Plain numbers stay.
pub(super) fn guard(cell: &str) -> Cow<'_, str> {
    if cell.starts_with(is_guarded) && cell.parse::<f64>().is_err() {
        return Cow::Owned(format!("'{cell}"));
    }
    Cow::Borrowed(cell)
}

fn is_guarded(c: char) -> bool {
    matches!(c, '=' | '+' | '-' | '@' | '＝' | '＋' | '－' | '＠' | '\t' | '\r' | '\'')
}

/// The entries of a list in one cell, in order; empty ones keep their place.
pub(super) fn split_list(cell: &str) -> Vec<String> {
    let mut entries = vec![String::new()];
    let mut chars = cell.chars().peekable();
    while let Some(c) = chars.next() {
        let escaped = chars.next_if(|next| c == '\\' && (*next == '\\' || SEPARATORS.contains(next)));
        match (escaped, entries.last_mut()) {
            (None, _) if SEPARATORS.contains(&c) => entries.push(String::new()),
            (escaped, Some(entry)) => entry.push(escaped.unwrap_or(c)),
            (_, None) => {}
        }
    }
    for entry in &mut entries {
        *entry = entry.trim().to_owned();
    }
    entries
}

/// A list in one cell, as [`split_list`] reads it.
pub(super) fn join_list<'a>(entries: impl IntoIterator<Item = &'a str>) -> String {
    let mut cell = String::new();
    for (i, entry) in entries.into_iter().enumerate() {
        if i > 0 {
            cell.push('；');
        }
        let mut chars = entry.chars().peekable();
        while let Some(c) = chars.next() {
            let reads_as_escape =
                c == '\\' && chars.peek().is_none_or(|next| *next == '\\' || SEPARATORS.contains(next));
            if reads_as_escape || SEPARATORS.contains(&c) {
                cell.push('\\');
            }
            cell.push(c);
        }
    }
    cell
}

/// At most `limit` characters, for words in a message.
pub(super) fn shortened(text: &str, limit: usize) -> String {
    let mut short: String = text.chars().filter(|c| !c.is_control()).take(limit).collect();
    if text.chars().count() > limit {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers_are_compared_by_their_words() {
        for header in ["device_id", "DeviceID", "Device ID", "\u{feff}device-id*"] {
            assert_eq!(header_key(header), "deviceid");
        }
        assert_eq!(header_key(" 设备 编码（必填） "), "设备编码");
        assert_eq!(header_key("涉及金额（元）"), header_key("涉及金额(元)"));
    }

    #[test]
    fn marks_of_spreadsheets_are_not_content() {
        assert_eq!(content("=\"0436\""), "0436");
        assert_eq!(content("'0436\t"), "0436");
        assert_eq!(content(" 'tis \u{3000}"), "'tis");
        assert_eq!(guard("=1+1"), "'=1+1");
        assert_eq!(guard("-12.5"), "-12.5");
    }

    proptest! {
        #[test]
        fn a_guarded_cell_reads_back(cell in "[=+@'\\-]{0,2}[a-z0-9=]{1,8}") {
            // What a spreadsheet itself marks as text is the one thing that cannot be told apart.
            prop_assume!(!cell.starts_with("=\""));
            let guarded = guard(&cell).into_owned();
            prop_assert_eq!(content(&guarded), &cell);
        }

        #[test]
        fn a_list_reads_back(entries in prop::collection::vec("[a、；,\\\\|x]{0,5}", 1..4)) {
            let cell = join_list(entries.iter().map(String::as_str));
            prop_assert_eq!(split_list(&cell), entries);
        }
    }
}
