//! The command line as it is parsed.

use super::*;
use crate::error::Kind;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_command_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_parses() {
    let lines = [
        "vault create --device-name laptop",
        "vault status",
        "vault list",
        "vault accept-rollback --yes",
        "vault delete --yes vov2xk5lvov2xk5lvov2xk5lvov2xk5l",
        "secret put n",
        "secret put n --file f --if-revision 3",
        "secret put n --value-file f --if-absent",
        "secret get n --out f --revision 2",
        "secret list",
        "secret list db/",
        "secret delete n --if-revision 2",
        "secret history n",
        "key generate k -a ed25519 --exportable --audit-use",
        "key import k -a hmac-sha256 --format hex --file f",
        "key list",
        "key public k --pem",
        "key public k --format raw",
        "key sign k --file f --out s",
        "key verify k --signature s --file f",
        "key agree k --peer p --peer-format hex",
        "key encrypt k --associated a",
        "key decrypt k --file f",
        "key mac k --format base64",
        "key export k --out f",
        "key delete k",
        "audit --last 5",
        "attest --evidence-out e",
        "trust add f",
        "trust show",
        "node status",
        "node vaults --socket /s",
        "node vaults --by latency --limit 20",
        "node diagnose --socket /s --json",
        "node top",
        "node top --socket /s --once --interval 0.2 --by queue --limit 8192",
        "node top --json",
        "node evict vov2xk5lvov2xk5lvov2xk5lvov2xk5l",
        "node drain",
        "completion zsh",
        "secret get n --json --home h --nats nats://h:1 --creds c --nats-ca ca --timeout 0.5 --prefix other",
    ];
    for line in lines {
        parse(&format!("casemate {line}")).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn wrong_uses_are_refused_with_two() {
    let lines = [
        "",
        "vault",
        "secret put",
        "secret put n value",
        "secret put n --if-absent --if-revision 1",
        "secret put n --if-revision 0",
        "key generate k",
        "key generate k -a rsa",
        "key verify k",
        "node evict short",
        "node vaults --by size",
        "node vaults --limit 0",
        "node top --limit 8193",
        "node top --interval 0.1",
        "node top --interval 61",
        "vault status --timeout 61",
        "vault status --timeout 0",
        "vault status --prefix a.b",
        "vault status --creds a --nkey b",
        "vault delete --yes x",
    ];
    for line in lines {
        let error = parse(&format!("casemate {line}")).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn completion_knows_every_command() {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "casemate", &mut script);
        let script = String::from_utf8(script).unwrap();
        for word in ["top", "--interval", "latency"] {
            let word = if shell == Shell::Fish { word.trim_start_matches('-') } else { word };
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn help_teaches_and_names_the_exit_codes() {
    let help = Cli::command().render_long_help().to_string();
    for kind in [Kind::NotFound, Kind::Distrusted, Kind::Rollback, Kind::OutcomeUnknown, Kind::NotVerified] {
        assert!(help.contains(&format!(" {} ", kind as u8)), "{kind:?}");
    }
    assert!(help.contains("Examples:"));
}

#[test]
fn a_home_that_trusts_nothing_sends_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("home");
    let home = home.to_str().unwrap();
    let run = |line: &[&str]| {
        let args = ["casemate", "--home", home, "--nats", "nats://127.0.0.1:1"].into_iter().chain(line.iter().copied());
        let cli = Cli::try_parse_from(args).unwrap();
        dispatch(cli, Roots::released(), Output { json: true }).unwrap_err()
    };
    for line in [["vault", "create"].as_slice(), &["attest"]] {
        let error = run(line);
        assert_eq!(error.kind, Kind::Distrusted, "{line:?}: {}", error.message);
        assert!(error.remedy.contains("casemate trust add"));
    }
    assert_eq!(run(&["vault", "status"]).kind, Kind::NotFound);
    assert_eq!(run(&["vault", "status", "--vault", "vov2xk5lvov2xk5lvov2xk5lvov2xk5l"]).kind, Kind::NotFound);
}
