//! The system calls that a vault-manager's loop needs on static musl, with their arguments where an argument decides what the
//! call can do. Everything else, also every call of another architecture's table, kills the process.
//!
//! - **Talk:** `recvfrom` and `sendto` on the one socket, and `ppoll`. Not `recvmsg` and `sendmsg`: those carry descriptors.
//! - **Memory:** `brk`, `mmap` of private anonymous memory only (shared memory would escape `RLIMIT_DATA`), `munmap`, `mremap`,
//!   `mprotect`, `madvise` that gives memory back. Nothing is ever executable that was not so at the fork.
//! - **Time and chance:** `clock_gettime` of the two clocks that we use (where the vDSO falls back to it; a clock id can also name
//!   another process and would then tell its CPU time), `getrandom`.
//! - **The end:** `exit`, `exit_group`, and `sigaltstack`, with which the Rust runtime takes leave. abort(3) works, so that a
//!   panic or an exhausted memory limit is told apart from an attack: `rt_sigprocmask`, `tkill` with SIGABRT (own uid: there
//!   is nobody else to hit), and `write` to descriptor 2, where the runtime's last words go; it is closed.
//!
//! There is no `futex`: the process has one thread, and a lock that is not free will never be.

use nix::errno::Errno;
use seccompiler::{BpfProgram, BpfProgramRef};

use super::descriptors;
use super::filter::{self, Alternatives, Call, Condition, FilterError};

const STDERR: u64 = 2;
const SOCKET: u64 = descriptors::SOCKET.unsigned_abs() as u64;
const PROT_READ_WRITE: u64 = (libc::PROT_READ | libc::PROT_WRITE).unsigned_abs() as u64;
const PRIVATE_ANONYMOUS: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS).unsigned_abs() as u64;
/// musl's malloc lays guard pages with it.
const FIXED: u64 = libc::MAP_FIXED.unsigned_abs() as u64;

/// An argument that is a C `int`: the kernel looks at its lower half only, so we do.
const fn is(argument: u8, value: u64) -> Condition {
    Condition { argument, mask: u32::MAX as u64, value }
}

/// An argument that is a `long` and must be `value` in all bits but those of `free`.
const fn is_but_for(argument: u8, free: u64, value: u64) -> Condition {
    Condition { argument, mask: !free, value }
}

const fn no_exec(argument: u8) -> Condition {
    is_but_for(argument, PROT_READ_WRITE, 0)
}

fn one_of(argument: u8, values: &[i32]) -> Alternatives {
    values.iter().map(|value| vec![is(argument, u64::from(value.unsigned_abs()))]).collect()
}

fn list() -> Vec<Call> {
    let call = |number, when| Call { number: u32::try_from(number).expect("numbers are small"), when };
    let always = |number| call(number, None);
    let only = |number, conditions| call(number, Some(vec![conditions]));
    vec![
        only(libc::SYS_recvfrom, vec![is(0, SOCKET)]),
        only(libc::SYS_sendto, vec![is(0, SOCKET)]),
        always(libc::SYS_ppoll),
        always(libc::SYS_brk),
        only(libc::SYS_mmap, vec![no_exec(2), is_but_for(3, FIXED, PRIVATE_ANONYMOUS)]),
        always(libc::SYS_munmap),
        always(libc::SYS_mremap),
        only(libc::SYS_mprotect, vec![no_exec(2)]),
        call(libc::SYS_madvise, Some(one_of(2, &[libc::MADV_DONTNEED, libc::MADV_FREE]))),
        call(libc::SYS_clock_gettime, Some(one_of(0, &[libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC]))),
        always(libc::SYS_getrandom),
        always(libc::SYS_rt_sigprocmask),
        always(libc::SYS_sigaltstack),
        only(libc::SYS_tkill, vec![is(1, u64::from(libc::SIGABRT.unsigned_abs()))]),
        only(libc::SYS_write, vec![is(0, STDERR)]),
        always(libc::SYS_exit),
        always(libc::SYS_exit_group),
    ]
}

/// Compiles the list, once, in the zygote.
pub(super) fn compile() -> Result<BpfProgram, FilterError> {
    filter::compile(list())
}

pub(super) fn apply(filter: BpfProgramRef<'_>) -> nix::Result<()> {
    seccompiler::apply_filter(filter).map_err(|error| match error {
        seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => {
            error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw)
        }
        _ => Errno::EINVAL,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use seccompiler::SeccompCmpArgLen::{Dword, Qword};
    use seccompiler::SeccompCmpOp::MaskedEq;
    use seccompiler::{SeccompAction, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule};

    use super::super::filter::tests::{Data, run};
    use super::*;

    /// The same list, compiled by Firecracker's compiler.
    fn second_opinion() -> BpfProgram {
        let condition = |&Condition { argument, mask, value }: &Condition| {
            if mask == u64::from(u32::MAX) {
                SeccompCondition::new(argument, Dword, SeccompCmpOp::Eq, value).unwrap()
            } else {
                SeccompCondition::new(argument, Qword, MaskedEq(mask), value).unwrap()
            }
        };
        let rule = |conditions: &Vec<Condition>| SeccompRule::new(conditions.iter().map(condition).collect()).unwrap();
        let rules: BTreeMap<i64, Vec<SeccompRule>> = list()
            .iter()
            .map(|call| (i64::from(call.number), call.when.iter().flatten().map(rule).collect()))
            .collect();
        let architecture = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, architecture);
        filter.unwrap().try_into().unwrap()
    }

    /// Numbers of the list, of its neighbours, of no call, and of the table of x32.
    fn numbers() -> impl Strategy<Value = u32> {
        let listed: Vec<u32> = list().iter().map(|call| call.number).collect();
        prop_oneof![
            8 => (proptest::sample::select(listed.clone()), prop_oneof![4 => Just(0_i64), 1 => -1..=1_i64])
                .prop_map(|(number, beside)| u32::try_from(i64::from(number) + beside).unwrap_or_default()),
            1 => proptest::sample::select(listed).prop_map(|number| number | 0x4000_0000),
            1 => any::<u32>(),
        ]
    }

    /// Arguments that conditions ask for, with a bit that they do not, in either half.
    fn argument() -> impl Strategy<Value = u64> {
        let asked: Vec<u64> = list()
            .iter()
            .flat_map(|call| call.when.clone().into_iter().flatten().flatten())
            .map(|condition| condition.value)
            .chain([0, 1, 2, 3, 4, 7])
            .collect();
        let one_bit_off =
            (proptest::sample::select(asked.clone()), 0..64_u32).prop_map(|(value, bit)| value ^ (1 << bit));
        prop_oneof![4 => proptest::sample::select(asked), 2 => one_bit_off, 1 => any::<u64>()]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// Whoever compiles the list, it allows the same.
        #[test]
        fn two_compilers_agree(number in numbers(), arguments in proptest::array::uniform6(argument()), foreign in 0..8_u8) {
            let mut data = Data::of(number, arguments);
            if foreign == 0 {
                // The i386 table's number.
                data.architecture = 0x4000_0003;
            }
            let (ours, theirs) = (compile().unwrap(), second_opinion());
            prop_assert_eq!(run(&ours, &data).0, run(&theirs, &data).0);
        }
    }

    #[test]
    fn the_list_compiles_small() {
        let program = compile().unwrap();
        assert!(program.len() < 100, "{} instructions", program.len());
        // What the kernel does once for each number of its table, each time a vault is opened.
        for number in 0..470 {
            let (_, steps) = run(&program, &Data::of(number, [0; 6]));
            assert!(steps <= 17, "{steps} steps for {number}");
        }
    }
}
