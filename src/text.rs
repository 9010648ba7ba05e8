//! Foreign text in our messages: bounded and escaped, never echoed raw.

const QUOTED_CHARS: usize = 40;

/// Quotes foreign text for a message: control characters escaped, at most 40 characters.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted: String = text.chars().take(QUOTED_CHARS).flat_map(char::escape_default).collect();
    if text.chars().nth(QUOTED_CHARS).is_some() {
        quoted.push('…');
    }
    format!("\"{quoted}\"")
}

const SHOWN_CHARS: usize = 200;

/// Another's message for one of ours: it may quote foreign text. Control characters escaped, at most 200 characters.
pub(crate) fn shown(message: &str) -> String {
    let mut shown: String = message.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect();
    if message.chars().nth(SHOWN_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_is_bounded_and_escaped() {
        // covers: VAL-1 AUD-6
        let hostile = "\u{1b}[31m\n".repeat(1000);
        let quoted = quote(&hostile);
        assert!(quoted.len() < 400 && quoted.is_ascii() == quoted.replace('…', "").eq(&quoted), "{quoted}");
        assert!(!quoted.contains('\n') && !quoted.contains('\u{1b}'));
    }
}
