//! Texts in PEM form, block by block: what stands in one file is often for several readers.
//!
//! It only cuts; what a block holds is for others to read. It must never change a block.

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// One block of a text, from its first line to its last, without a line end after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'t> {
    /// What it says it is, such as `CERTIFICATE`.
    pub label: &'t str,
    /// All of it.
    pub text: &'t str,
}

/// The blocks of a text, in order. What stands between blocks is passed over; a block without its end ends the text.
pub fn blocks(mut text: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    while let Some(block) = next(&mut text) {
        blocks.push(block);
    }
    blocks
}

/// Those blocks that are of a kind.
pub fn blocks_of<'t>(text: &'t str, label: &str) -> Vec<&'t str> {
    blocks(text).into_iter().filter(|block| block.label == label).map(|block| block.text).collect()
}

fn next<'t>(rest: &mut &'t str) -> Option<Block<'t>> {
    let text: &'t str = rest;
    let from = text.find(BEGIN)?;
    let block = text.get(from..)?;
    let label = block.get(BEGIN.len()..)?.split(DASHES).next()?;
    let last_line = block.find(END)?;
    let label_end = last_line + END.len();
    let end = label_end + block.get(label_end..)?.find(DASHES)? + DASHES.len();
    *rest = block.get(end..)?;
    Some(Block { label, text: block.get(..end)? })
}

/// The label of a certificate.
pub const CERTIFICATE: &str = "CERTIFICATE";
/// The label of a revocation list.
pub const LIST: &str = "X509 CRL";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_cut_as_they_stand() {
        let one = "-----BEGIN A-----\nx\n-----END A-----";
        let two = "-----BEGIN B C-----\r\ny\r\n-----END B C-----";
        let text = format!("note\n{one}\n\n{two}\nrest -----BEGIN D-----\nno end");
        let found = blocks(&text);
        assert_eq!(found, [Block { label: "A", text: one }, Block { label: "B C", text: two }]);
        assert_eq!(blocks_of(&text, "B C"), [two]);
        for nothing in ["", "-----BEGIN ", "-----BEGIN A-----\n-----END ", "-----END A-----"] {
            assert_eq!(blocks(nothing), [], "{nothing}");
        }
    }
}
