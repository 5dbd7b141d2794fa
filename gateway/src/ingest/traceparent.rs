//! W3C trace contexts, as they come from outside: told apart from any other text, which must never be stored or passed
//! on in their place.

use std::sync::Arc;

/// Letters of each part of version 00: version, trace, span, flags.
const PARTS: [usize; 4] = [2, 32, 16, 2];

/// A `traceparent` of version 00; `None`: the text is none.
pub fn read(text: &str) -> Option<Arc<str>> {
    let parts: Vec<&str> = text.splitn(PARTS.len() + 1, '-').collect();
    let hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let fits = parts.iter().map(|part| part.len()).eq(PARTS) && parts.iter().all(|part| hex(part));
    (fits && parts[0] == "00").then(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_else_passes_for_a_trace_context() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(read(good).as_deref(), Some(good));
        for wrong in [
            "",
            "00",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-张三",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-张三张三张三张三张三aa-00f067aa0ba902b7-01",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
