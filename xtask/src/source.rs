//! Reads Rust source just well enough to count and to find things in it.

/// The source with comments, strings and character literals blanked out, line by line as it was.
pub(crate) fn bare(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = skip(bytes, at);
        if end == at {
            out.push(bytes[at]);
            at += 1;
        } else {
            let blanked = bytes[at..end].iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' });
            out.extend(blanked);
            at = end;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The end of the comment or literal that starts here, or `at` itself.
fn skip(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let in_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    if rest.starts_with(b"//") {
        return at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    }
    if rest.starts_with(b"/*") {
        return skip_block_comment(bytes, at);
    }
    if rest[0] == b'"' {
        return skip_string(bytes, at + 1);
    }
    if rest[0] == b'r' && !in_word || rest.starts_with(b"br") || rest.starts_with(b"cr") {
        let start = at + rest.iter().position(|byte| *byte == b'r').unwrap_or(0) + 1;
        let hashes = bytes[start..].iter().take_while(|byte| **byte == b'#').count();
        if bytes.get(start + hashes) == Some(&b'"') {
            return skip_raw_string(bytes, start + hashes + 1, hashes);
        }
    }
    if rest[0] == b'\'' {
        return skip_character(bytes, at);
    }
    at
}

fn skip_block_comment(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn skip_string(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn skip_raw_string(bytes: &[u8], mut at: usize, hashes: usize) -> usize {
    while at < bytes.len() {
        let closes =
            bytes[at] == b'"' && bytes[at + 1..].iter().take(hashes).filter(|byte| **byte == b'#').count() == hashes;
        if closes {
            return at + 1 + hashes;
        }
        at += 1;
    }
    at
}

/// A quote starts a character literal or a lifetime.
fn skip_character(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at + 1) {
        Some(b'\\') => {
            let close = bytes[at + 3..].iter().position(|byte| *byte == b'\'');
            close.map_or(at, |close| at + 3 + close + 1)
        }
        Some(_) => {
            let close = bytes[at + 2..].iter().take(4).position(|byte| *byte == b'\'');
            match close {
                Some(0) => at + 3,
                // More than one byte: one character only if it is not ASCII.
                Some(close) if !bytes[at + 1].is_ascii() => at + 2 + close + 1,
                _ => at,
            }
        }
        None => at,
    }
}

/// A stretch of lines, counted from 0, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) name: String,
    pub(crate) first: usize,
    pub(crate) last: usize,
}

/// The functions with a body, in bare source.
pub(crate) fn functions(bare: &str) -> Vec<Span> {
    words(bare, "fn")
        .filter_map(|at| {
            let rest = &bare[at + 2..];
            let name: String = rest.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            // `fn(u8) -> u8` is a type; a declaration ends in a semicolon.
            let open = body_start(rest)?;
            (!name.is_empty()).then(|| span(bare, name, at, at + 2 + open))
        })
        .collect()
}

/// The blocks, functions and so on that follow the word `unsafe`, in bare source.
pub(crate) fn unsafe_spans(bare: &str) -> Vec<Span> {
    words(bare, "unsafe")
        .map(|at| {
            let rest = &bare[at + 6..];
            let what = rest.trim_start();
            let name = if what.starts_with('{') { "block" } else { "item" }.to_owned();
            match body_start(rest) {
                Some(open) => span(bare, name, at, at + 6 + open),
                None => {
                    let line = line_of(bare, at);
                    Span { name, first: line, last: line }
                }
            }
        })
        .collect()
}

/// The offset of the brace that opens the body, unless a semicolon outside brackets comes first.
fn body_start(rest: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in rest.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth <= 0 => return Some(at),
            ';' if depth <= 0 => return None,
            _ => {}
        }
    }
    None
}

fn span(bare: &str, name: String, start: usize, open: usize) -> Span {
    let mut depth = 0;
    let mut end = bare.len();
    for (at, c) in bare[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            end = open + at;
            break;
        }
    }
    Span { name, first: line_of(bare, start), last: line_of(bare, end) }
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count()
}

/// Where a word stands by itself.
pub(crate) fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let bytes = text.as_bytes();
        let before = at.checked_sub(1).and_then(|before| bytes.get(before));
        !part(before) && !part(bytes.get(at + word.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_comments_are_blanked() {
        let source = "a /* x /* y */ z */ b // fn no\n\"fn \\\" no\" r#\"un\"safe\"# 'x' '\\'' &'a c '}'";
        let bare = bare(source);
        let words: Vec<_> = bare.split_whitespace().collect();
        assert_eq!(words, ["a", "b", "&'a", "c"]);
        assert_eq!(bare.lines().count(), 2);
    }

    #[test]
    fn functions_have_a_first_and_a_last_line() {
        let source = "trait T { fn none(&self); }\nfn one(f: fn(u8) -> [u8; 2]) {\n  if x { }\n}\n";
        let found = functions(source);
        assert_eq!(found, [Span { name: "one".into(), first: 1, last: 3 }]);
    }

    #[test]
    fn unsafe_is_found_as_a_word() {
        let found = unsafe_spans("unsafe_code; unsafe {\n}\nunsafe fn f() {\n\n}\n");
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].name.as_str(), found[0].last), ("block", 1));
        assert_eq!((found[1].name.as_str(), found[1].last), ("item", 4));
    }
}
