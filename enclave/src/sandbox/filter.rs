//! Compiles a list of allowed system calls into a seccomp filter that finds a call by halves.
//!
//! The kernel runs a new filter once for every number of its table, to learn which calls it allows whatever their arguments. A vault-manager
//! puts up its filter each time its vault is opened: asked number by number, down the whole list, that alone took 60 µs.

use seccompiler::{BpfProgram, sock_filter};

/// An argument of which some bits must have a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    /// Which argument, from 0.
    pub(super) argument: u8,
    /// The bits that are looked at.
    pub(super) mask: u64,
    /// What they must be.
    pub(super) value: u64,
}

/// When a call is allowed: when all conditions of one of these hold.
pub(super) type Alternatives = Vec<Vec<Condition>>;

/// One system call of the list.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// Its number.
    pub(super) number: u32,
    /// None: whatever its arguments.
    pub(super) when: Option<Alternatives>,
}

impl Call {
    /// Whether each of its alternatives asks for something, and for nothing outside the bits that are looked at.
    fn is_clear(&self) -> bool {
        let is_clear = |condition: &Condition| condition.mask != 0 && condition.value & !condition.mask == 0;
        let asks = |conditions: &Vec<Condition>| !conditions.is_empty() && conditions.iter().all(is_clear);
        self.when.as_ref().is_none_or(|when| !when.is_empty() && when.iter().all(asks))
    }
}

/// Why there is no filter: a mistake in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// A filter's short jumps lead over 255 instructions at most.
    #[error("the list of system calls is too long for one filter")]
    TooLong,
    /// A call stands there twice, is allowed on no condition at all, or on one that cannot be what was meant.
    #[error("the list of system calls can be read in two ways")]
    Ambiguous,
}

/// `AUDIT_ARCH_*` of linux/audit.h: the machine's number in ELF, 64 bits, little-endian.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_0000 + 62;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_0000 + 183;

/// Where `struct seccomp_data` of linux/seccomp.h has what.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;
const ARGUMENT_BYTES: u32 = 8;

/// Instructions of linux/bpf_common.h: load a word of the data, mask it, go on depending on it, say what becomes of the call.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

/// The filter: calls of the list are allowed, everything else, also every call of another architecture's table, kills the process.
///
/// # Errors
/// See [`FilterError`].
pub(super) fn compile(mut calls: Vec<Call>) -> Result<BpfProgram, FilterError> {
    calls.sort_unstable_by_key(|call| call.number);
    if calls.windows(2).any(|two| two[0].number == two[1].number) || !calls.iter().all(Call::is_clear) {
        return Err(FilterError::Ambiguous);
    }
    let mut program = Backwards::default();
    let allow = program.put(RETURN, libc::SECCOMP_RET_ALLOW);
    let kill = program.put(RETURN, libc::SECCOMP_RET_KILL_PROCESS);
    let verdicts = Verdicts { allow, kill };
    let search = program.search(&calls, verdicts)?;
    let number = program.put(LOAD, NUMBER_AT);
    debug_assert_eq!(number.0, search.0 + 1, "the search begins with what was loaded");
    program.branch(IF_EQUAL, ARCHITECTURE, number, kill)?;
    program.put(LOAD, ARCHITECTURE_AT);
    Ok(program.into_program())
}

/// A program from its last instruction to its first: jumps only ever go forward, so that what they lead to is there already.
#[derive(Default)]
struct Backwards(Vec<sock_filter>);

/// An instruction, counted from the end.
#[derive(Clone, Copy)]
struct Place(usize);

#[derive(Clone, Copy)]
struct Verdicts {
    allow: Place,
    kill: Place,
}

impl Backwards {
    fn put(&mut self, code: u16, k: u32) -> Place {
        self.0.push(sock_filter { code, jt: 0, jf: 0, k });
        Place(self.0.len() - 1)
    }

    /// Goes on at one of two places.
    fn branch(&mut self, code: u16, k: u32, then: Place, otherwise: Place) -> Result<Place, FilterError> {
        let here = self.0.len();
        // As many instructions are jumped over as lie in between.
        let jump = |to: Place| u8::try_from(here - 1 - to.0).map_err(|_| FilterError::TooLong);
        self.0.push(sock_filter { code, jt: jump(then)?, jf: jump(otherwise)?, k });
        Ok(Place(here))
    }

    /// Finds the loaded number among `calls`, which are in order.
    fn search(&mut self, calls: &[Call], verdicts: Verdicts) -> Result<Place, FilterError> {
        match calls {
            [] => Ok(verdicts.kill),
            [call] => {
                let leaf = call.when.as_ref().map_or(Ok(verdicts.allow), |when| self.judge(when, verdicts))?;
                self.branch(IF_EQUAL, call.number, leaf, verdicts.kill)
            }
            _ => {
                let (lower, upper) = calls.split_at(calls.len() / 2);
                let (at_least, below) = (self.search(upper, verdicts)?, self.search(lower, verdicts)?);
                self.branch(IF_AT_LEAST, upper[0].number, at_least, below)
            }
        }
    }

    /// Looks at the arguments.
    fn judge(&mut self, alternatives: &Alternatives, verdicts: Verdicts) -> Result<Place, FilterError> {
        alternatives.iter().rev().try_fold(verdicts.kill, |otherwise, conditions| {
            conditions.iter().rev().try_fold(verdicts.allow, |then, condition| self.test(condition, then, otherwise))
        })
    }

    /// A filter's words have 32 bits, and an argument two of them.
    fn test(&mut self, condition: &Condition, then: Place, otherwise: Place) -> Result<Place, FilterError> {
        let lower_at = ARGUMENTS_AT + ARGUMENT_BYTES * u32::from(condition.argument);
        #[expect(clippy::cast_possible_truncation, reason = "one half and the other")]
        let half = |of: u64, upper: bool| (if upper { of >> 32 } else { of }) as u32;
        [true, false].into_iter().try_fold(then, |then, upper| {
            let (mask, value) = (half(condition.mask, upper), half(condition.value, upper));
            if mask == 0 {
                return Ok(then);
            }
            self.branch(IF_EQUAL, value, then, otherwise)?;
            if mask != u32::MAX {
                self.put(AND, mask);
            }
            Ok(self.put(LOAD, if upper { lower_at + 4 } else { lower_at }))
        })
    }

    fn into_program(mut self) -> BpfProgram {
        self.0.reverse();
        self.0
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What the kernel hands a filter.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) struct Data {
        pub(in super::super) number: u32,
        pub(in super::super) architecture: u32,
        pub(in super::super) arguments: [u64; 6],
    }

    impl Data {
        pub(in super::super) const fn of(number: u32, arguments: [u64; 6]) -> Self {
            Self { number, architecture: ARCHITECTURE, arguments }
        }

        fn word(&self, at: u32) -> u32 {
            let arguments = self.arguments.iter().flat_map(|argument| argument.to_le_bytes());
            let head = [self.number.to_le_bytes(), self.architecture.to_le_bytes(), [0; 4], [0; 4]].concat();
            let bytes: Vec<u8> = head.into_iter().chain(arguments).collect();
            let at = usize::try_from(at).unwrap();
            u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
        }
    }

    /// What a program says, and after how many instructions.
    pub(in super::super) fn run(program: &[sock_filter], data: &Data) -> (u32, usize) {
        let (mut at, mut word, mut steps) = (0, 0, 0);
        loop {
            let &sock_filter { code, jt, jf, k } = &program[at];
            steps += 1;
            at += 1;
            let jump = |holds: bool| usize::from(if holds { jt } else { jf });
            match code {
                LOAD => word = data.word(k),
                AND => word &= k,
                IF_EQUAL => at += jump(word == k),
                IF_AT_LEAST => at += jump(word >= k),
                // Jumps without a condition, which seccompiler makes and we do not.
                0x05 => at += usize::try_from(k).unwrap(),
                RETURN => return (k, steps),
                _ => panic!("{code:#x} at {at}"),
            }
        }
    }

    fn allows(program: &[sock_filter], number: u32, arguments: [u64; 6]) -> bool {
        match run(program, &Data::of(number, arguments)).0 {
            libc::SECCOMP_RET_ALLOW => true,
            libc::SECCOMP_RET_KILL_PROCESS => false,
            other => panic!("{other:#x}"),
        }
    }

    #[test]
    fn an_empty_list_allows_nothing() {
        let program = compile(Vec::new()).unwrap();
        assert!((0..1000).all(|number| !allows(&program, number, [0; 6])));
    }

    #[test]
    fn both_halves_of_an_argument_are_looked_at_where_they_are_asked_for() {
        let condition = |mask, value| Condition { argument: 3, mask, value };
        let call = |mask, value| vec![Call { number: 7, when: Some(vec![vec![condition(mask, value)]]) }];
        let argument = |value| [9, 9, 9, value, 9, 9];
        let whole = compile(call(u64::MAX, 1 << 40 | 5)).unwrap();
        assert!(allows(&whole, 7, argument(1 << 40 | 5)));
        assert!(!allows(&whole, 7, argument(5)) && !allows(&whole, 7, argument(1 << 40)));
        let lower = compile(call(0xffff_ffff, 5)).unwrap();
        assert!(allows(&lower, 7, argument(1 << 40 | 5)) && !allows(&lower, 7, argument(4)));
        let masked = compile(call(!3, 0)).unwrap();
        assert!(allows(&masked, 7, argument(3)) && !allows(&masked, 7, argument(4)));
        assert!(!allows(&masked, 7, argument(1 << 63)));
    }

    #[test]
    fn a_list_that_is_too_long_is_refused() {
        let calls = (0..200).map(|number| Call { number, when: None }).collect();
        assert_eq!(compile(calls), Err(FilterError::TooLong));
    }

    #[test]
    fn a_list_that_can_be_read_in_two_ways_is_refused() {
        let condition = |mask, value| Condition { argument: 0, mask, value };
        let when = |when| compile(vec![Call { number: 7, when }]).map(drop);
        assert_eq!(when(Some(vec![vec![condition(1, 1)]])), Ok(()));
        for unclear in [
            vec![],
            vec![vec![]],
            vec![vec![condition(1, 1)], vec![]],
            vec![vec![condition(0, 0)]],
            // The upper half would not be looked at.
            vec![vec![condition(0xffff_ffff, 1 << 40 | 5)]],
        ] {
            assert_eq!(when(Some(unclear)), Err(FilterError::Ambiguous));
        }
        let twice = [None, Some(vec![vec![condition(1, 1)]])].map(|when| Call { number: 7, when });
        assert_eq!(compile(twice.into()).map(drop), Err(FilterError::Ambiguous));
    }

    #[test]
    fn the_search_is_short() {
        let calls = (0..64).map(|number| Call { number: number * 3, when: None }).collect();
        let program = compile(calls).unwrap();
        for number in 0..200 {
            assert_eq!(allows(&program, number, [0; 6]), number % 3 == 0 && number < 192);
            let (_, steps) = run(&program, &Data::of(number, [0; 6]));
            // The architecture, six halves, the number, the verdict.
            assert!(steps <= 3 + 6 + 1 + 1, "{steps} steps for {number}");
        }
    }
}
