//! What the stand-in promises, asked of a running one by the client that the enclave uses too: `aws-sdk-kms`.

mod faults_are_as_told;
mod only_attested_images_get_keys;
mod restarts_keep_the_key;
mod strangers_get_nothing;
mod world;
