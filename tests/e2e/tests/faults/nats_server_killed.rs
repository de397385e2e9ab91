//! The NATS server is killed or stopped at random points under a writing load.

use casemate_e2e::chaos::Part;

use crate::chaos::hold;

#[test]
fn answered_writes_survive() {
    hold(104, Part::Nats);
}
