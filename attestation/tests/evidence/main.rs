//! What the whole crate promises of evidence, one promise a file.

#![allow(clippy::unwrap_used, reason = "what the collection says of a document is there")]

mod a_cache_changes_no_verdict;
mod arbitrary_bytes_are_refused;
mod real_documents_get_their_verdict;
mod real_quotes_get_their_verdict;
mod real_reports_get_their_verdict;
mod vectors;
