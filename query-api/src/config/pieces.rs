//! Pieces of text in one text, separated by commas.
//!
//! A piece may contain commas itself: `\,` is a literal comma, and `\\` a backslash. Before
//! anything else a backslash is just a backslash.

/// The text that [`split`] splits into these pieces.
pub(super) fn join(pieces: impl IntoIterator<Item = String>) -> String {
    let escaped = pieces.into_iter().map(|piece| {
        let piece = piece.replace('\\', r"\\");
        piece.replace(',', r"\,")
    });
    escaped.collect::<Vec<_>>().join(",")
}

/// The pieces of a text; a single empty one if the text is empty.
pub(super) fn split(text: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut piece = String::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                let escaped = characters.next_if(|next| matches!(*next, ',' | '\\'));
                piece.push(escaped.unwrap_or('\\'));
            }
            ',' => pieces.push(std::mem::take(&mut piece)),
            character => piece.push(character),
        }
    }
    pieces.push(piece);
    pieces
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_comma_divides_unless_it_is_escaped() {
        for (text, pieces) in [
            ("", vec![""]),
            ("a", vec!["a"]),
            ("a,b", vec!["a", "b"]),
            (",", vec!["", ""]),
            (r"a\,b,c", vec!["a,b", "c"]),
            (r"a\\,b", vec![r"a\", "b"]),
            (r"a\\\,b", vec![r"a\,b"]),
            (r"C:\a\", vec![r"C:\a\"]),
        ] {
            assert_eq!(split(text), pieces, "{text}");
        }
    }

    proptest! {
        #[test]
        fn pieces_read_as_they_were_joined(pieces in proptest::collection::vec(r"[a,=\\]{0,6}", 1..5)) {
            prop_assert_eq!(split(&join(pieces.clone())), pieces);
        }
    }
}
