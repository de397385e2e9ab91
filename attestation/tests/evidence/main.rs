//! What the whole crate promises of evidence, one promise a file.

mod a_cache_changes_no_verdict;
mod arbitrary_bytes_are_refused;
mod real_documents_get_their_verdict;
mod real_quotes_get_their_verdict;
mod real_reports_get_their_verdict;
mod vectors;
