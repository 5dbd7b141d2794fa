//! Why a bundle is not taken in: always whole, before any of it is written.

use crate::division::Division;

/// What is wrong with a bundle. None of it was taken in.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Something else.
    #[error("this file is not a bundle (该文件不是贯通数据包)")]
    NotOne,
    /// Of a later format.
    #[error(
        "the bundle was made by a newer program, in format {0}, and this one reads up to format {max}; upgrade this node \
         (数据包由更新版本生成，请先升级本节点)",
        max = super::FORMAT
    )]
    Newer(u32),
    /// It ends too early.
    #[error("the bundle is cut short; copy it again from where it was made (数据包不完整，请重新复制)")]
    CutShort,
    /// Not what its maker made. Says which part.
    #[error(
        "{0} of the bundle cannot be read: it was damaged or altered on its way; copy it again from where it was made \
         (数据包已损坏或被改动，请重新复制)"
    )]
    Damaged(&'static str),
    /// A chunk does not open: only its maker can have made it so, since the seal is verified before.
    #[error(
        "the bundle does not open with this node's key; have it made again (数据包无法解密，请对方重新导出)"
    )]
    Unopened,
    /// Another node's.
    #[error("the bundle is for {receiver}, and this node is {own} (数据包的接收方不是本节点)")]
    ForAnother {
        /// For whom it is.
        receiver: Division,
        /// This node.
        own: Division,
    },
    /// Made by this node.
    #[error("this node made the bundle itself; carry it to {receiver} (这是本节点导出的数据包)")]
    OwnBundle {
        /// For whom it is.
        receiver: Division,
    },
    /// Neither above nor below.
    #[error(
        "the bundle is from {sender}, which is neither this node's parent nor below it (发送方既非上级也非下级节点)"
    )]
    Stranger {
        /// Who made it.
        sender: Division,
    },
    /// Sealed with a key that this node does not have any more, or never had.
    #[error(
        "the bundle was made with a key that this node does not have ({id}); give the sender this node's card again, \
         `guantong bundle card` (数据包使用了本节点没有的密钥，请重新提供名片)"
    )]
    UnknownKey {
        /// The key's name.
        id: super::KeyId,
    },
    /// A key cannot be used.
    #[error(
        "the key that the bundle is to be sealed with cannot be used; accept the other side's card again"
    )]
    Key,
    /// Made too long ago, or later than now.
    #[error(
        "the bundle says that it was made at another time than it can have been, or over 90 days ago; have a new one made \
         (数据包的生成时间不合理或已超过90天，请对方重新导出)"
    )]
    Time,
    /// The seal is not its sender's.
    #[error("the bundle's seal does not hold: {0} (数据包签名无效)")]
    Seal(String),
    /// What is inside breaks the rules that its sender should keep.
    #[error(
        "the bundle's content breaks the format: {0}; have it made again (数据包内容不符合格式，请对方重新导出)"
    )]
    Content(String),
    /// Its sender was put back or copied when it made it, and did not know.
    #[error(
        "{sender} made the bundle after its store was put back or copied, and before it knew: taken in, it could replace \
         what came from there before. Carry a bundle from here to {sender}, and have another one made there: it holds the \
         same (对方数据曾被恢复或复制，请先将本节点数据包带给对方，再请对方重新导出)"
    )]
    PutBack {
        /// Who made it.
        sender: Division,
    },
    /// The file cannot be read.
    #[error("the bundle cannot be read: {0}")]
    Read(#[from] std::io::Error),
}

impl BundleError {
    /// For the audit log.
    pub fn code(&self) -> &'static str {
        match self {
            BundleError::NotOne => "not_a_bundle",
            BundleError::Newer(_) => "newer_format",
            BundleError::CutShort => "cut_short",
            BundleError::Damaged(_) => "damaged",
            BundleError::Unopened => "unopened",
            BundleError::ForAnother { .. } => "for_another",
            BundleError::OwnBundle { .. } => "own_bundle",
            BundleError::Stranger { .. } => "stranger",
            BundleError::UnknownKey { .. } => "unknown_key",
            BundleError::Key => "key",
            BundleError::Time => "time",
            BundleError::Seal(_) => "seal",
            BundleError::Content(_) => "content",
            BundleError::PutBack { .. } => "put_back",
            BundleError::Read(_) => "unreadable",
        }
    }
}
