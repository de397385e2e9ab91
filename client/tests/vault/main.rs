//! The library against a vault that lives in the test's memory: the real handshake, the real judgement of real (development)
//! evidence, and a host that drops, forges, delays and rolls back.

#![allow(clippy::unwrap_used)]

mod fake;

mod answers_are_asked_for_again;
mod believes_only_what_it_judged;
mod history_only_moves_forward;
mod lock_key_turns_safely;
mod vault_lives_and_dies;
