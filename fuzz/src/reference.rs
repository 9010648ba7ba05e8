//! The rules once more, after the specifications and not after the library's code.

/// Whether a text is a name, by `.specs/30-seal-format.md`: 1 to 256 of `A-Z a-z 0-9 . _ -`, no leading dot, no `..`.
pub(crate) fn is_name(text: &[u8]) -> bool {
    (1..=256).contains(&text.len())
        && text.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && text[0] != b'.'
        && !text.windows(2).any(|pair| pair == b"..")
}

/// The position, from 1, of the first character that makes a text no digest; `None` for a digest. A text that ends too early
/// is wrong after its last character.
pub(crate) fn first_bad_of_digest(text: &str) -> Option<usize> {
    let characters: Vec<char> = text.chars().collect();
    for (at, &found) in characters.iter().enumerate() {
        let allowed = match at {
            0..7 => "sha256:".chars().nth(at) == Some(found),
            7..71 => "0123456789abcdef".contains(found),
            _ => false,
        };
        if !allowed {
            return Some(at + 1);
        }
    }
    (characters.len() < 71).then_some(characters.len())
}

/// A seal's fields, as far as the library shows them.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Seal {
    pub(crate) cuda: bool,
    pub(crate) uuid: [u8; 16],
    pub(crate) ordinal: u32,
    pub(crate) worker: String,
    pub(crate) shard: String,
    pub(crate) model_ref: Option<String>,
    pub(crate) part: Option<([u8; 16], u32, u32)>,
    pub(crate) layout_digest: [u8; 32],
    pub(crate) byte_len: u64,
    pub(crate) block_size: u32,
    pub(crate) salt: Vec<u8>,
    pub(crate) digest: [u8; 32],
    pub(crate) expected: bool,
    pub(crate) adopted: bool,
    pub(crate) sealed_at: u64,
}

/// Decodes a seal by the table in `.specs/30-seal-format.md`; `None` for whatever is not one.
pub(crate) fn seal(bytes: &[u8]) -> Option<Seal> {
    if bytes.len() > 2048 {
        return None;
    }
    // The tag says nothing by itself.
    let mut rest = Rest(bytes.get(..bytes.len().checked_sub(32)?)?);
    let head = rest.take(23)?;
    if &head[..20] != b"vram-residency/seal\0" || head[20..22] != [1, 0] {
        return None;
    }
    let mut seal = Seal { cuda: one_of(head[22], 1, 2)?, uuid: rest.array()?, ordinal: rest.u32()?, ..Seal::default() };
    rest.take(16 + 4)?; // epoch and slot: any
    if rest.u64()? == 0 {
        return None;
    }
    seal.worker = rest.name()?;
    seal.shard = rest.name()?;
    seal.model_ref = match rest.prefixed()? {
        b"" => None,
        name if is_name(name) => Some(String::from_utf8(name.to_vec()).ok()?),
        _ => return None,
    };
    seal.part = match (rest.array()?, rest.u32()?, rest.u32()?) {
        (id, 0, 0) if id == [0; 16] => None,
        (id, index, count) if index < count => Some((id, index, count)),
        _ => return None,
    };
    seal.layout_digest = rest.array()?;
    seal.byte_len = rest.u64().filter(|&bytes| bytes > 0)?;
    seal.block_size = rest.u32().filter(|bytes| [1, 2, 4, 8, 16, 32, 64].map(|kib| kib * 1024).contains(bytes))?;
    seal.salt = rest.prefixed().filter(|salt| salt.len() <= 32)?.to_vec();
    seal.digest = rest.array()?;
    seal.expected = one_of(rest.take(1)?[0], 1, 2)?;
    seal.adopted = one_of(rest.take(1)?[0], 1, 0)?;
    seal.sealed_at = rest.u64()?;
    rest.0.is_empty().then_some(seal)
}

/// Whether a byte is the one that means yes; `None` when it is neither.
fn one_of(byte: u8, yes: u8, no: u8) -> Option<bool> {
    (byte == yes || byte == no).then_some(byte == yes)
}

/// What is left to decode.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (head, rest) = (self.0.get(..bytes)?, &self.0[bytes..]);
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.array()?))
    }

    fn prefixed(&mut self) -> Option<&'a [u8]> {
        let length = u16::from_le_bytes(self.array()?);
        self.take(length.into())
    }

    fn name(&mut self) -> Option<String> {
        let name = self.prefixed().filter(|name| is_name(name))?;
        String::from_utf8(name.to_vec()).ok()
    }
}
