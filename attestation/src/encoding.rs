//! Bytes as text.

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD};

/// Undoes base64 of either alphabet, with or without padding, whatever white space is in it.
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    // By bytes, which is some times quicker than by characters; what is not ASCII stays and is refused.
    let text: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    [BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD].iter().find_map(|encoding| encoding.decode(&text).ok())
}

/// Undoes hex, or else base64.
pub(crate) fn hex_or_base64(text: &str) -> Option<Vec<u8>> {
    hex::decode(text.trim()).ok().or_else(|| base64(text))
}
