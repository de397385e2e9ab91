//! A child's first steps, from the fork to the code that it was made for.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::socket::{MsgFlags, send};
use nix::unistd::{dup2_stdin, getppid};

use super::message::{LAYER_FAILED_CODE, ProbeReport};
use super::process;
use crate::sandbox::{Cell, Layer, LayerFailure, SOCKET, Sandbox};
use crate::vault::parking::ParkingSecret;

/// What a vault-manager does with its socket once its walls stand.
pub(super) type Manager = fn(OwnedFd, ParkingSecret) -> !;

const NAME: &std::ffi::CStr = c"vault-manager";
/// A child that could not even take its place: EX_OSERR of sysexits(3).
const NO_PLACE: i32 = 71;

/// What a child was made for.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Manage(Manager),
    Probe,
}

/// Never returns to the zygote's code, on no path.
pub(super) fn live(
    socket: OwnedFd,
    sandbox: &Sandbox,
    cell: &Cell,
    purpose: Purpose,
    parking_secret: ParkingSecret,
) -> ! {
    let Ok(socket) = take_place(socket) else { process::leave(NO_PLACE) };
    match purpose {
        Purpose::Manage(run_manager) => match sandbox.enter(cell) {
            Ok(()) => run_manager(socket, parking_secret),
            Err(LayerFailure { layer, .. }) => process::leave(LAYER_FAILED_CODE + i32::from(layer.number())),
        },
        Purpose::Probe => {
            let found = sandbox.enter_and_look(cell);
            report(&socket, found.err().map_or(ProbeReport::Holds, ProbeReport::Fails));
            if found.is_ok() && sandbox.has(Layer::Seccomp) {
                // Not on the list: the probe must not live to tell.
                getppid();
                report(&socket, ProbeReport::Lives);
            }
            process::leave(0)
        }
    }
}

/// Puts the socket where the control socket stood, which closes that one in the same step: it cannot be forgotten.
fn take_place(socket: OwnedFd) -> nix::Result<OwnedFd> {
    dup2_stdin(&socket)?;
    drop(socket);
    prctl::set_name(NAME)?;
    process::child_signals()?;
    process::give_way();
    // SAFETY: number 0 was the control socket, borrowed from the zygote's standard input, which this process never uses again.
    Ok(unsafe { process::own(SOCKET) })
}

fn report(socket: &OwnedFd, report: ProbeReport) {
    // Somebody who does not listen any more is somebody who has given up on this probe.
    let _: Result<usize, Errno> = send(socket.as_raw_fd(), &report.write(), MsgFlags::MSG_NOSIGNAL);
}
