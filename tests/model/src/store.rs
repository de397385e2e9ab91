//! The object store: create-only, and with it the objects that vault-managers seal.

use bytes::Bytes;

/// Versions that a store of this model can hold.
const LONGEST: usize = 6;

/// Writes that an object carries or a vault has executed: a set of (device, sequence number).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Writes(u16);

impl Writes {
    /// The set of one.
    pub fn one(device: usize, sequence: usize) -> Self {
        debug_assert!(device < 4 && sequence < 4);
        Self(1 << (4 * device + sequence))
    }

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are among these.
    pub const fn contain(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is among these.
    pub const fn meet(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// How many.
    pub const fn count(self) -> u32 {
        self.0.count_ones()
    }
}

/// A sealed object. Two of them have the same bytes only when all of this is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Object {
    /// What tells it from every other object.
    pub salt: u8,
    /// The salt of the object that it follows: its hash, in the code.
    pub previous: u8,
    /// What it changes.
    pub writes: Writes,
}

impl Object {
    /// Its bytes, as [`casemate_enclave::supervisor::router::Commit`] puts and compares them.
    pub fn bytes(self) -> Bytes {
        let [high, low] = self.writes.0.to_be_bytes();
        Bytes::copy_from_slice(&[self.salt, self.previous, high, low])
    }

    /// What these bytes are.
    pub fn of(bytes: &[u8]) -> Self {
        let [salt, previous, high, low] = bytes.try_into().expect("an object of this model has four bytes");
        Self { salt, previous, writes: Writes(u16::from_be_bytes([high, low])) }
    }
}

/// A point in a vault's history, as requests and replies carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Head {
    /// The version.
    pub version: u64,
    /// Which object that is.
    pub salt: u8,
}

/// Versions from the first on, each following the one before it. It is never empty: creating a vault is not part of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chain {
    objects: [Object; LONGEST],
    length: u8,
}

impl Default for Chain {
    /// The vault as it was created.
    fn default() -> Self {
        Self { objects: [Object::default(); LONGEST], length: 1 }
    }
}

impl Chain {
    /// All versions, the first one first.
    pub fn objects(&self) -> &[Object] {
        &self.objects[..usize::from(self.length)]
    }

    /// The newest version's number.
    pub fn version(&self) -> u64 {
        self.length.into()
    }

    /// The newest version.
    pub fn head(&self) -> Head {
        Head { version: self.version(), salt: self.newest().salt }
    }

    fn newest(&self) -> Object {
        self.objects[usize::from(self.length) - 1]
    }

    /// What the vault has executed.
    pub fn writes(&self) -> Writes {
        self.objects().iter().fold(Writes::default(), |all, object| all.and(object.writes))
    }

    /// The object of a version.
    pub fn object(&self, version: u64) -> Option<Object> {
        let index = usize::try_from(version).ok()?.checked_sub(1)?;
        self.objects().get(index).copied()
    }

    /// The same up to a version.
    #[must_use]
    pub fn until(&self, version: u64) -> Self {
        let mut chain = Self::default();
        for object in &self.objects()[1..usize::try_from(version.min(self.version())).expect("a short chain")] {
            chain.push(*object);
        }
        chain
    }

    /// Whether these are the first versions of `longer`.
    pub fn is_begin_of(&self, longer: &Self) -> bool {
        longer.objects().starts_with(self.objects())
    }

    /// The object that is sealed next: these writes on top of everything here.
    pub fn next(&self, writes: Writes, salt: u8) -> Object {
        Object { salt, previous: self.newest().salt, writes }
    }

    /// Appends a version.
    pub fn push(&mut self, object: Object) {
        self.objects[usize::from(self.length)] = object;
        self.length += 1;
    }
}

/// The store. It holds what was created there, whatever that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Store {
    objects: [Option<Object>; LONGEST],
}

impl Default for Store {
    /// A store in which the vault was created.
    fn default() -> Self {
        let mut objects = [None; LONGEST];
        objects[0] = Some(Object::default());
        Self { objects }
    }
}

impl Store {
    /// Creates a version, if none has this number.
    pub fn create(&mut self, version: u64, object: Object) -> bool {
        let is_absent = self.read(version).is_none();
        if is_absent {
            self.write(version, object);
        }
        is_absent
    }

    /// Puts a version whether one has this number or not: what the store must never do.
    pub fn write(&mut self, version: u64, object: Object) {
        self.objects[place(version)] = Some(object);
    }

    /// The object under a version's name.
    pub fn read(&self, version: u64) -> Option<Object> {
        self.objects[place(version)]
    }

    /// The objects that stand there.
    pub fn objects(&self) -> impl Iterator<Item = Object> {
        self.objects.iter().flatten().copied()
    }

    /// Every consecutive version that follows the one before it, as opening a vault takes them.
    pub fn load(&self) -> Chain {
        let mut chain = Chain::default();
        for object in self.objects.iter().skip(1).map_while(|object| *object) {
            if object.previous != chain.head().salt {
                break;
            }
            chain.push(object);
        }
        chain
    }
}

fn place(version: u64) -> usize {
    usize::try_from(version).ok().and_then(|version| version.checked_sub(1)).expect("versions begin with one")
}
