//! The vault-manager's process: one blocking receive, one machine, one blocking send.

use std::os::fd::OwnedFd;
use std::time::Duration;

use casemate_memory::{be_thrifty, keep_blocks};

use super::manager::Manager;
use super::parking::ParkingSecret;
use crate::manager_socket::ManagerSocket;
use crate::system::{OsRandomness, SystemClock};
use crate::zygote::leave;

/// Serves one vault until the supervisor stops it or goes away. The process ends with it; memory is wiped by its types and gone
/// with the process.
pub fn run(socket: OwnedFd, parking_secret: ParkingSecret) -> ! {
    be_thrifty();
    keep_blocks();
    let (clock, randomness) = (SystemClock::of_the_machine(), OsRandomness);
    let mut socket = ManagerSocket::new(socket);
    let mut manager = Manager::new(&clock, &randomness, parking_secret);
    // What was sent before this process was there is looked at first: what it has to say to that goes out with the word that it is ready,
    // and the supervisor is woken once.
    while !manager.has_ended() {
        match socket.recv_timeout(Duration::ZERO) {
            Ok(Some(message)) => manager.handle(message),
            Ok(None) => break,
            Err(_) => leave(1),
        }
    }
    loop {
        for message in manager.take_output() {
            if socket.send(&message).is_err() {
                leave(1);
            }
        }
        if manager.has_ended() {
            leave(0);
        }
        match socket.recv() {
            Ok(message) => manager.handle(message),
            Err(_) => leave(1),
        }
    }
}
