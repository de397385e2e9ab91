//! Every block of commands in `runbooks/` is executed, in its page's order, against a node under a real systemd, with `aws` speaking to
//! emulators; or says in its own line why it is not.

use std::fs;

use casemate_e2e::programs::checkout;

use crate::site::Site;

/// A fenced block.
#[derive(Debug)]
struct Block {
    page: String,
    line: usize,
    kind: Kind,
    text: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Run,
    NotRun(String),
    Other(String),
}

fn blocks(page: &str, text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in text.lines().enumerate() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(info)) => {
                let kind = match info.trim() {
                    "sh run" => Kind::Run,
                    other => match other.strip_prefix("sh not-run: ") {
                        Some(reason) => Kind::NotRun(reason.to_owned()),
                        None => Kind::Other(other.to_owned()),
                    },
                };
                open = Some(Block { page: page.to_owned(), line: number + 1, kind, text: String::new() });
            }
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{page}: a block does not end");
    found
}

/// All blocks of all pages; those that change the most come last.
fn all() -> Vec<Block> {
    let mut pages: Vec<_> =
        fs::read_dir(checkout().join("runbooks")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    let last = pages.iter().position(|path| path.ends_with("backup-and-restore.md")).unwrap();
    let restore = pages.remove(last);
    pages.push(restore);
    pages
        .iter()
        .flat_map(|path| blocks(&path.file_name().unwrap().display().to_string(), &fs::read_to_string(path).unwrap()))
        .collect()
}

#[test]
fn every_block_runs_or_says_why_not() {
    let blocks = all();
    for block in &blocks {
        match &block.kind {
            Kind::Run => {}
            Kind::NotRun(reason) => assert!(reason.len() > 20, "{block:?}: why not?"),
            Kind::Other(info) => {
                panic!("{}:{}: `{info}` is neither `sh run` nor `sh not-run: reason`", block.page, block.line)
            }
        }
        let parsed = std::process::Command::new("bash").args(["-n", "-c", &block.text]).output().unwrap();
        assert!(parsed.status.success(), "{block:?}: {}", String::from_utf8_lossy(&parsed.stderr));
    }
    let run = blocks.iter().filter(|block| block.kind == Kind::Run).count();
    assert!(run * 2 > blocks.len(), "most are executed: {run} of {}", blocks.len());
}

#[test]
fn the_pages_links_lead_somewhere() {
    for entry in fs::read_dir(checkout().join("runbooks")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = path.parent().unwrap().join(link.split('#').next().unwrap());
            assert!(target.exists(), "{}: {link}", path.display());
        }
    }
}

#[test]
fn every_executable_block_works_on_a_running_node() {
    let Some(site) = Site::open() else { return };
    let mut seen = 0;
    for block in all().iter().filter(|block| block.kind == Kind::Run) {
        let ran = site.shell(&block.text);
        let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
        assert!(
            ran.status.success(),
            "{}:{}: {}\n{}\n--- {said}\n{}",
            block.page,
            block.line,
            ran.status,
            block.text,
            site.journal()
        );
        eprintln!("{}:{} ran", block.page, block.line);
        seen += 1;
    }
    assert!(seen > 20);
    // The restore lost a change, was seen, and was accepted: not merely run.
    let audit = site.shell("casemate audit --json");
    assert!(String::from_utf8_lossy(&audit.stdout).contains("rollback_accepted"), "{audit:?}");
}
