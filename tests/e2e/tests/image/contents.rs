//! A release image holds two programs and nothing else: no shell, no word and no symbol of development.

use std::collections::BTreeSet;

use casemate_e2e::guest::Emulation;
use casemate_eif::cpio;
use casemate_eif::header::Kind;
use casemate_eif::parse::Parsed;
use casemate_eif::ramdisk::{Content, Ramdisk};
use object::read::elf::ElfFile64;
use object::{Object, ObjectSymbol};

/// All there is, one list a ramdisk. A program is 0755; everything else is a place to mount at.
const FILES: [&[&str]; 2] = [&["d dev", "d proc", "d run", "d sys", "d tmp", "- init"], &["- casemate-enclave"]];
const IMAGE_BYTES: usize = 20 << 20;
/// Crates that only tests and the local run may have, as their symbols name them, and what they say.
const FORBIDDEN: [&str; 11] = [
    "casemate_standins",
    "casemate_dev",
    "casemate_e2e",
    "standin_kms",
    "proptest",
    "rcgen",
    "DEV ONLY",
    "SimulatedModule",
    // Nobody sets the kernel's clock: musl's functions that do are not even linked.
    "clock_settime",
    "settimeofday",
    "adjtimex",
];

/// The ramdisks of an image.
fn ramdisks(image: &[u8]) -> Vec<Ramdisk> {
    let parsed = Parsed::parse(image).unwrap();
    parsed.of_kind(Kind::Ramdisk).map(|archive| cpio::read(archive).unwrap()).collect()
}

fn programs(ramdisks: &[Ramdisk]) -> impl Iterator<Item = (&str, &[u8])> {
    ramdisks.iter().flat_map(Ramdisk::entries).filter_map(|(name, entry)| match &entry.content {
        Content::File(bytes) => Some((name, bytes.as_slice())),
        _ => None,
    })
}

/// The names of a program's symbols.
fn symbols(program: &[u8]) -> BTreeSet<String> {
    let elf = ElfFile64::<object::Endianness>::parse(program).unwrap();
    elf.symbols().filter_map(|symbol| Some(symbol.name().ok()?.to_owned())).collect()
}

/// What of the forbidden is in a program: among its symbols, or anywhere else in its bytes.
fn found_in(program: &[u8]) -> Vec<&'static str> {
    let symbols = symbols(program);
    let is_there = |word: &&str| {
        symbols.iter().any(|symbol| symbol.contains(*word))
            || program.windows(word.len()).any(|window| window == word.as_bytes())
    };
    FORBIDDEN.into_iter().filter(is_there).collect()
}

#[test]
fn two_programs_and_nothing_of_development() {
    let (Some(release), Some(test)) = (Emulation::of_release_image(), Emulation::of_test_image()) else {
        println!("! skipped: CASEMATE_EMULATOR, CASEMATE_IMAGE and CASEMATE_TEST_IMAGE name no images");
        return;
    };
    let image = std::fs::read(release.image).unwrap();
    println!("{} bytes (promised: {IMAGE_BYTES})", image.len());
    assert!(image.len() <= IMAGE_BYTES);
    let release = ramdisks(&image);
    let listed: Vec<Vec<String>> = (release.iter())
        .map(|ramdisk| {
            let mut names: Vec<String> = (ramdisk.entries())
                .map(|(name, entry)| match &entry.content {
                    Content::Directory => format!("d {name}"),
                    Content::File(_) if entry.mode == 0o755 => format!("- {name}"),
                    other => panic!("/{name} has no business in an image: {:o} {other:?}", entry.mode),
                })
                .collect();
            names.sort_by_key(|name| (name.starts_with('-'), name.clone()));
            names
        })
        .collect();
    assert_eq!(listed, FILES);
    for (name, program) in programs(&release) {
        let elf = ElfFile64::<object::Endianness>::parse(program).unwrap();
        assert!(elf.imports().unwrap().is_empty(), "/{name} needs no library");
        let symbols = symbols(program);
        println!("/{name}: {} bytes, {} symbols", program.len(), symbols.len());
        // A program without symbols would have none of the forbidden either.
        assert!(symbols.contains("main"), "/{name} has symbols to look at");
        assert_eq!(found_in(program), Vec::<&str>::new(), "/{name}");
    }
    // The search finds what is there.
    let test = ramdisks(&std::fs::read(test.image).unwrap());
    let (_, development) = programs(&test).find(|(name, _)| *name == "casemate-enclave").unwrap();
    let found = found_in(development);
    assert!(
        ["casemate_standins", "casemate_dev", "DEV ONLY", "clock_settime"].iter().all(|word| found.contains(word)),
        "{found:?}"
    );
}
