//! The kernel of an image: what its first bytes say of it.
//!
//! Source: Linux, `Documentation/arch/x86/boot.rst`, "The Real-Mode Kernel Header".

const BOOT_FLAG_AT: usize = 0x1FE;
const MAGIC_AT: usize = 0x202;
const VERSION_POINTER_AT: usize = 0x20E;
/// What the pointer is relative to.
const VERSION_BASE: usize = 0x200;
/// Longer than any version that `make kernelrelease` prints.
const RELEASE_BYTES: usize = 64;

/// Why a file is no kernel for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// Not in the form that an x86-64 enclave boots.
    #[error("no x86 Linux kernel: pass the compressed one, arch/x86/boot/bzImage of the kernel's build, not vmlinux")]
    NotBzImage,
    /// The header points to no version.
    #[error("a bzImage whose header names no version of Linux: the file is damaged, build it again")]
    NoRelease,
}

/// The version of Linux that a bzImage says it is, such as `6.12.9`.
///
/// # Errors
/// [`KernelError`] when it is no bzImage.
pub fn release(kernel: &[u8]) -> Result<&str, KernelError> {
    let is = |at: usize, bytes: &[u8]| kernel.get(at..).is_some_and(|kernel| kernel.starts_with(bytes));
    if !is(BOOT_FLAG_AT, &[0x55, 0xAA]) || !is(MAGIC_AT, b"HdrS") {
        return Err(KernelError::NotBzImage);
    }
    let pointer = kernel.get(VERSION_POINTER_AT..).and_then(<[u8]>::first_chunk).ok_or(KernelError::NoRelease)?;
    let text = kernel.get(VERSION_BASE + usize::from(u16::from_le_bytes(*pointer))..).ok_or(KernelError::NoRelease)?;
    // `6.12.9 (user@host) #1 SMP …`, ended by NUL.
    let end =
        text.iter().take(RELEASE_BYTES).position(|byte| matches!(byte, b' ' | 0)).ok_or(KernelError::NoRelease)?;
    let release = std::str::from_utf8(&text[..end]).map_err(|_| KernelError::NoRelease)?;
    let plain =
        release.starts_with(|first: char| first.is_ascii_digit()) && release.bytes().all(|b| b.is_ascii_graphic());
    if plain { Ok(release) } else { Err(KernelError::NoRelease) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What [`release`] looks at of a bzImage, and `body` behind it.
    pub(crate) fn bz_image(version: &str, body: &[u8]) -> Vec<u8> {
        let mut kernel = vec![0; 0x300];
        kernel[BOOT_FLAG_AT..][..2].copy_from_slice(&[0x55, 0xAA]);
        kernel[MAGIC_AT..][..4].copy_from_slice(b"HdrS");
        kernel[VERSION_POINTER_AT..][..2].copy_from_slice(&0x100_u16.to_le_bytes());
        kernel.extend_from_slice(version.as_bytes());
        kernel.push(0);
        kernel.extend_from_slice(body);
        kernel
    }

    #[test]
    fn a_kernel_says_its_version() {
        let kernel = bz_image("6.12.9 (casemate@build) #1 SMP PREEMPT_DYNAMIC", b"code");
        assert_eq!(release(&kernel), Ok("6.12.9"));
        assert_eq!(release(&bz_image("6.1-rc1", b"")), Ok("6.1-rc1"));
    }

    #[test]
    fn other_files_are_no_kernels() {
        assert_eq!(release(b""), Err(KernelError::NotBzImage));
        assert_eq!(release(b"\x7fELF"), Err(KernelError::NotBzImage));
        let kernel = bz_image("6.12.9", b"");
        for end in 0..kernel.len() {
            assert!(release(&kernel[..end]).is_err(), "cut at {end}");
        }
        let mut away = kernel.clone();
        away[VERSION_POINTER_AT..][..2].copy_from_slice(&[0xFF, 0xFF]);
        assert_eq!(release(&away), Err(KernelError::NoRelease));
        for version in ["", "Linux", "6.1\u{7f}", "6é", &"6".repeat(64)] {
            assert_eq!(release(&bz_image(version, b"")), Err(KernelError::NoRelease), "{version:?}");
        }
    }
}
