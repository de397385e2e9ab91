//! Randomness: getrandom(2) for every call, no generator in between.

use zeroize::Zeroizing;

/// The system gave no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no randomness ({0})")]
pub struct RandomError(getrandom::Error);

/// `N` public random bytes: a salt, a nonce.
///
/// # Errors
/// When the system has none.
pub fn bytes<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut out = [0; N];
    getrandom::fill(&mut out).map_err(RandomError)?;
    Ok(out)
}

/// `N` secret random bytes: a key.
///
/// # Errors
/// When the system has none.
pub fn secret<const N: usize>() -> Result<Zeroizing<[u8; N]>, RandomError> {
    let mut out = Zeroizing::new([0; N]);
    getrandom::fill(out.as_mut_slice()).map_err(RandomError)?;
    Ok(out)
}

/// A random number for jitter. Without randomness there is no jitter, which harms nobody.
pub fn jitter() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX / 2)
}
