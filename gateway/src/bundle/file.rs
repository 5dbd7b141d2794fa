//! A bundle as bytes: head, chunks, seal. Written piece by piece, and read in passes over the file: one that looks at its
//! frame and hashes it, so that the seal can be verified, and others that open its chunks.

use std::io::Read;

use bytes::Bytes;
use guantong_proto::v1;
use prost::Message;

use super::error::BundleError;
use super::keys::{KeyId, Opening, PublicKey, Sealing, SecretKey};
use super::{AGE_MAX_MS, FORMAT};
use crate::division::Division;

const MAGIC: &[u8; 8] = b"GTBUNDLE";
/// Marks the last chunk in its length.
const LAST: u32 = 1 << 31;
/// The largest frame, in bytes: a batch that did not get smaller, and what stands around it.
pub const FRAME_BYTES_MAX: usize = 1_280 * 1024;
/// What sealing adds to a frame.
const TAG_BYTES: usize = 16;
const HEAD_BYTES_MAX: usize = 4 * 1024;
/// A signature and a chain of certificates.
const SEAL_BYTES_MAX: usize = 64 * 1024;
/// Read at a time where nothing is kept.
const PIECE_BYTES: usize = 64 * 1024;

/// What anyone may read of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Who says that it made it.
    pub sender: Division,
    /// For whom.
    pub receiver: Division,
    /// The sender's number for it.
    pub number: u64,
    /// When it was begun, Unix milliseconds.
    pub time_ms: u64,
    /// The receiver's key.
    pub key: KeyId,
    /// HPKE's encapsulated key.
    encapsulated: Bytes,
}

impl Head {
    /// What is bound into the encryption: nothing sealed under one head opens under another.
    fn info(sender: Division, receiver: Division, number: u64, time_ms: u64) -> String {
        format!("guantong bundle {FORMAT}\n{sender}\n{receiver}\n{number}\n{time_ms}\n")
    }

    fn read(bytes: &[u8]) -> Result<Head, BundleError> {
        let damaged = || BundleError::Damaged("the head");
        let head = v1::BundleHead::decode(bytes).map_err(|_| damaged())?;
        let division = |text: &str| {
            let whole = if text.len() == 12 { Division::parse(text).ok() } else { None };
            whole.ok_or_else(damaged)
        };
        Ok(Head {
            sender: division(&head.sender)?,
            receiver: division(&head.receiver)?,
            number: head.number,
            time_ms: u64::try_from(head.time_ms).map_err(|_| damaged())?,
            key: KeyId(head.key_id.as_ref().try_into().map_err(|_| damaged())?),
            encapsulated: head.encapsulated_key,
        })
    }

    /// Whether this node may take it in at all: it is for it, by somebody who may send to it, and of this time. Who really
    /// made it, the seal says.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self, own: Division, now_ms: u64, drift_ms: u64) -> Result<(), BundleError> {
        if self.sender == own {
            return Err(BundleError::OwnBundle { receiver: self.receiver });
        }
        if self.receiver != own {
            return Err(BundleError::ForAnother { receiver: self.receiver, own });
        }
        if !own.strictly_contains(self.sender) && !self.sender.strictly_contains(own) {
            return Err(BundleError::Stranger { sender: self.sender });
        }
        let early = self.time_ms > now_ms.saturating_add(drift_ms);
        if early || now_ms.saturating_sub(self.time_ms) > AGE_MAX_MS {
            return Err(BundleError::Time);
        }
        Ok(())
    }
}

/// A bundle that is being made.
pub struct Writing {
    sealing: Sealing,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Writing {
    /// Begins one; gives the first bytes of the file. `seed` is 32 random bytes, drawn anew.
    ///
    /// # Errors
    /// The receiver's key cannot be used.
    pub fn begin(
        sender: Division,
        receiver: Division,
        (number, time_ms): (u64, u64),
        key: &PublicKey,
        seed: [u8; 32],
    ) -> Result<(Writing, Vec<u8>), BundleError> {
        let info = Head::info(sender, receiver, number, time_ms);
        let (encapsulated, sealing) = key.seal(info.as_bytes(), seed)?;
        let head = v1::BundleHead {
            sender: sender.to_string(),
            receiver: receiver.to_string(),
            number,
            time_ms: i64::try_from(time_ms).unwrap_or(i64::MAX),
            key_id: Bytes::copy_from_slice(&key.id().0),
            encapsulated_key: encapsulated.into(),
        };
        let head = head.encode_to_vec();
        let mut out = MAGIC.to_vec();
        out.extend(FORMAT.to_be_bytes());
        out.extend(length(head.len())?.to_be_bytes());
        out.extend(head);
        let mut writing = Writing { sealing, hasher: blake3::Hasher::new(), bytes: 0 };
        writing.count(&out);
        Ok((writing, out))
    }

    /// The next bytes of the file, for a frame. The `last` one is a `BundleEnd`.
    ///
    /// # Errors
    /// The frame is larger than one may be.
    pub fn frame(&mut self, frame: &v1::BundleFrame, last: bool) -> Result<Vec<u8>, BundleError> {
        let frame = frame.encode_to_vec();
        if frame.len() > FRAME_BYTES_MAX {
            return Err(BundleError::Content(format!("a frame of {} bytes is too large", frame.len())));
        }
        let sealed = self.sealing.seal(&frame, last)?;
        let marked = length(sealed.len())? | if last { LAST } else { 0 };
        let mut out = marked.to_be_bytes().to_vec();
        out.extend(sealed);
        self.count(&out);
        Ok(out)
    }

    /// What is to be signed, after the last frame.
    pub fn statement(&self) -> String {
        statement(&self.hasher.finalize())
    }

    /// The last bytes of the file; how many it has in all, and its checksum.
    ///
    /// # Errors
    /// The certificates are larger than they may be.
    pub fn finish(mut self, seal: &v1::BundleSeal) -> Result<(Vec<u8>, u64, [u8; 32]), BundleError> {
        let seal = seal.encode_to_vec();
        if seal.len() > SEAL_BYTES_MAX {
            return Err(BundleError::Seal("the certificates of this node are too large".into()));
        }
        let mut out = length(seal.len())?.to_be_bytes().to_vec();
        out.extend(seal);
        self.count(&out);
        Ok((out, self.bytes, *self.hasher.finalize().as_bytes()))
    }

    fn count(&mut self, out: &[u8]) {
        self.hasher.update(out);
        self.bytes += out.len() as u64;
    }
}

/// Begins with words of its own, so that no other signature of the same key is ever one of a bundle.
fn statement(hash: &blake3::Hash) -> String {
    format!("guantong bundle {FORMAT}\n{}\n", hash.to_hex())
}

fn length(bytes: usize) -> Result<u32, BundleError> {
    let small = u32::try_from(bytes).ok().filter(|bytes| bytes & LAST == 0);
    small.ok_or_else(|| BundleError::Content("a part is too large".into()))
}

/// What a first pass over a file found.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// Whose it says it is.
    pub head: Head,
    /// What its sender must have signed.
    pub statement: String,
    /// Who signed.
    pub seal: v1::BundleSeal,
    /// All of it.
    pub byte_count: u64,
    /// BLAKE3 of the whole file.
    pub checksum: [u8; 32],
}

/// Looks at a file from its first byte to its last. Nothing in it may be believed before the seal was verified.
///
/// # Errors
/// It is not a whole bundle of a format that is known.
pub fn inspect(file: impl Read) -> Result<Inspected, BundleError> {
    let mut file = Hashed { file, hasher: blake3::Hasher::new(), bytes: 0 };
    let head = file.head()?;
    loop {
        let marked = file.number()?;
        file.skip(chunk_bytes(marked)?)?;
        if marked & LAST != 0 {
            break;
        }
    }
    let statement = statement(&file.hasher.finalize());
    let bytes = file.number()? as usize;
    if bytes > SEAL_BYTES_MAX {
        return Err(BundleError::Damaged("the seal"));
    }
    let seal = file.take(bytes)?;
    let seal = v1::BundleSeal::decode(Bytes::from(seal)).map_err(|_| BundleError::Damaged("the seal"))?;
    if file.file.read(&mut [0])? != 0 {
        return Err(BundleError::Damaged("the end"));
    }
    let checksum = *file.hasher.finalize().as_bytes();
    Ok(Inspected { head, statement, seal, byte_count: file.bytes, checksum })
}

fn chunk_bytes(marked: u32) -> Result<usize, BundleError> {
    let bytes = (marked & !LAST) as usize;
    if (TAG_BYTES..=FRAME_BYTES_MAX + TAG_BYTES).contains(&bytes) {
        return Ok(bytes);
    }
    Err(BundleError::Damaged("a length"))
}

/// A file, and the hash over what was read of it.
struct Hashed<R> {
    file: R,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<R: Read> Hashed<R> {
    fn head(&mut self) -> Result<Head, BundleError> {
        let mut magic = [0; 8];
        match self.exactly(&mut magic) {
            Ok(()) if magic == *MAGIC => {}
            Ok(()) | Err(BundleError::CutShort) => return Err(BundleError::NotOne),
            Err(error) => return Err(error),
        }
        match self.number()? {
            FORMAT => {}
            newer if newer > FORMAT => return Err(BundleError::Newer(newer)),
            _ => return Err(BundleError::Damaged("the format")),
        }
        let bytes = self.number()? as usize;
        if bytes > HEAD_BYTES_MAX {
            return Err(BundleError::Damaged("the head"));
        }
        Head::read(&self.take(bytes)?)
    }

    fn exactly(&mut self, into: &mut [u8]) -> Result<(), BundleError> {
        self.file.read_exact(into).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => BundleError::CutShort,
            _ => BundleError::Read(error),
        })?;
        self.hasher.update(into);
        self.bytes += into.len() as u64;
        Ok(())
    }

    fn number(&mut self) -> Result<u32, BundleError> {
        let mut bytes = [0; 4];
        self.exactly(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }

    /// The next bytes; how many was checked.
    fn take(&mut self, bytes: usize) -> Result<Vec<u8>, BundleError> {
        let mut taken = vec![0; bytes];
        self.exactly(&mut taken)?;
        Ok(taken)
    }

    fn skip(&mut self, mut bytes: usize) -> Result<(), BundleError> {
        let mut piece = [0; PIECE_BYTES];
        while bytes > 0 {
            let now = bytes.min(PIECE_BYTES);
            self.exactly(&mut piece[..now])?;
            bytes -= now;
        }
        Ok(())
    }
}

/// The frames of a bundle, opened one by one. Its seal was verified before.
pub struct Frames<R> {
    file: Hashed<R>,
    opening: Opening,
    over: bool,
}

impl<R: Read> Frames<R> {
    /// Begins at the file's first byte. `keys` are all that this node ever had.
    ///
    /// # Errors
    /// It is not sealed for this node.
    pub fn open(file: R, keys: &[SecretKey]) -> Result<Frames<R>, BundleError> {
        let mut file = Hashed { file, hasher: blake3::Hasher::new(), bytes: 0 };
        let head = file.head()?;
        let mine = keys.iter().find(|key| key.public().is_some_and(|public| public.id() == head.key));
        let key = mine.ok_or(BundleError::UnknownKey { id: head.key })?;
        let info = Head::info(head.sender, head.receiver, head.number, head.time_ms);
        let opening = key.open(&head.encapsulated, info.as_bytes())?;
        Ok(Frames { file, opening, over: false })
    }

    /// The next frame, and whether it is the last; `None`: there are no more.
    ///
    /// # Errors
    /// The file is not what was sealed.
    pub fn next_frame(&mut self) -> Result<Option<(v1::BundleFrame, bool)>, BundleError> {
        if self.over {
            return Ok(None);
        }
        let marked = self.file.number()?;
        let sealed = self.file.take(chunk_bytes(marked)?)?;
        let last = marked & LAST != 0;
        let frame = Bytes::from(self.opening.open(&sealed, last)?);
        let frame = v1::BundleFrame::decode(frame);
        self.over = last;
        Ok(Some((frame.map_err(|_| BundleError::Content("a frame cannot be read".into()))?, last)))
    }
}
