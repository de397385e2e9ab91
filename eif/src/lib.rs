//! Enclave images: written reproducibly, measured, signed, and read back.
//!
//! An image is one file in AWS's Enclave Image Format: a kernel, its command line and ramdisks, and what the Nitro hypervisor
//! measures of them. The same inputs give the same bytes and so the same measurements, wherever they are built.
//! `docs/image.md` tells the format; `eif/check` compares this writer with AWS's, byte for byte.

pub mod cli;
pub mod cpio;
pub mod fuzz;
pub mod header;
pub mod image;
pub mod kernel;
pub mod manifest;
pub mod measure;
pub mod metadata;
pub mod parse;
pub mod policy;
pub mod ramdisk;
pub mod sbom;
pub mod sign;
pub mod summary;

pub use image::Image;
pub use measure::{Measurements, Pcr};
pub use parse::Parsed;
pub use ramdisk::Ramdisk;
