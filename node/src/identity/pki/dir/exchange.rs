//! What goes in and out of an authority's directory as files: certificates signed anew or for a key that stays elsewhere,
//! and the roots and lists that everyone needs.
//!
//! It must never hand out a certificate that is not recorded, and never take over roots or lists that do not fit.

use std::path::{Path, PathBuf};

use guantong_gateway::division::Division;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::super::authority::{Below, Renewed};
use super::super::files::{make_dir, read, refuse_existing, write};
use super::super::{KeyRequest, PkiError, PublicKey, Request, Signed, Validity};
use super::{
    AUTHORITIES, AUTHORITY, AUTHORITY_KEY, AuthorityDir, CERTIFICATE, DirError, ISSUED, KEY, REVOCATIONS,
    write_all,
};
use crate::identity::certificate::Certificate;
use crate::identity::now_ms;
use crate::identity::revocation;
use crate::identity::scope::Scope;

impl AuthorityDir {
    /// Signs the key of a signing request and writes `certificate.pem`, `authority.pem` and `revocations.pem` to `out`.
    /// Returns the files written.
    ///
    /// # Errors
    /// [`DirError::Exists`] if there is a certificate and `force` is not given; or as
    /// [`sign_request`](Self::sign_request).
    pub fn sign_request_to(
        &self,
        request_pem: &str,
        request: &Request,
        out: &Path,
        force: bool,
    ) -> Result<(Signed, Vec<PathBuf>), DirError> {
        refuse_existing(out, &[CERTIFICATE], force)?;
        let signed = self.sign_request(request_pem, request)?;
        let files = self.hand_out(&signed, out)?;
        Ok((signed, files))
    }

    /// Signs the key of an authority below this one and writes `authority.pem`, `authorities.pem` and `revocations.pem` to
    /// `out`, for the directory in which the key was made. Returns its serial number and the files.
    ///
    /// # Errors
    /// [`DirError::Exists`] if there is an authority and `force` is not given; or as
    /// [`Authority::sign_authority`](super::super::Authority::sign_authority).
    pub fn sign_authority_to(
        &self,
        request_pem: &str,
        division: Division,
        validity: Validity,
        out: &Path,
        force: bool,
    ) -> Result<(Certificate, Vec<PathBuf>), DirError> {
        refuse_existing(out, &[AUTHORITY], force)?;
        self.change(|now| {
            let key = PublicKey::of_request(request_pem)?;
            let chain = now.authority.sign_authority(&key, division, validity)?;
            now.hand_out_authority(&chain, out)
        })
    }

    /// Signs the key and names of a certificate again and writes the new one to `out`, over an old one of the same key.
    ///
    /// # Errors
    /// [`DirError::Unknown`] for a certificate that is not in use; [`DirError::Exists`] if one with another key is in the
    /// way; or as [`Authority::renew`](super::super::Authority::renew).
    pub fn renew(
        &self,
        certificate_pem: &str,
        validity: Validity,
        out: &Path,
    ) -> Result<(Renewed, Vec<PathBuf>), DirError> {
        self.change(|now| {
            let old = Certificate::read_pem(certificate_pem.as_bytes()).map_err(PkiError::from)?;
            let name = if old.is_authority { AUTHORITY } else { CERTIFICATE };
            let there = out.join(name);
            if there.exists() && key_of(&read(&there)?)? != key_of(certificate_pem)? {
                return Err(DirError::Exists(there));
            }
            let in_use = now.issued()?;
            if !in_use.iter().any(|entry| entry.serial == old.serial && entry.revoked_at_ms.is_none()) {
                return Err(DirError::Unknown(old.serial));
            }
            let renewed = match now.authority.renew(certificate_pem, &now.authority, validity) {
                Err(PkiError::NotOurs) => {
                    let previous = now.previous()?.ok_or(PkiError::NotOurs)?;
                    now.authority.renew(certificate_pem, &previous.authority, validity)?
                }
                renewed => renewed?,
            };
            let files = match &renewed.signed {
                Below::Holder(signed) => {
                    now.record_issued(&signed.serial, &signed.id.to_string(), signed.not_after_ms)?;
                    now.hand_out(signed, out)?
                }
                Below::Authority(chain) => now.hand_out_authority(chain, out)?.1,
            };
            Ok((renewed, files))
        })
    }

    /// Writes what everyone needs to `out`: the roots as `authority.pem`, and `revocations.pem`, with which newer lists
    /// that are there stay. Returns the files written.
    ///
    /// # Errors
    /// [`DirError::Exists`] if there are other roots and `force` is not given; or a failed file operation.
    pub fn export(&self, out: &Path, force: bool) -> Result<Vec<PathBuf>, DirError> {
        let roots = out.join(AUTHORITY);
        let trusted = self.authority.trusted_pem();
        if roots.exists() && !force && read(&roots)? != trusted {
            return Err(DirError::Exists(roots));
        }
        make_dir(out)?;
        let lists = self.lists_beside(out)?;
        write_all(out, &[(AUTHORITY, trusted, 0o644), (REVOCATIONS, &lists, 0o644)])
    }

    /// Takes over newer roots and lists from above, as [`export`](Self::export) writes them there: an authority below a
    /// root hands them out with what it signs.
    ///
    /// # Errors
    /// [`DirError::Above`] if they do not fit this authority, and nothing is changed.
    pub fn take_over(&self, roots_pem: &str, lists_pem: &str) -> Result<(), DirError> {
        self.change(|now| {
            let misfit = |why: &dyn std::fmt::Display| DirError::Above(why.to_string());
            let roots = ders(roots_pem).ok_or_else(|| misfit(&"the roots cannot be read"))?;
            let chain = ders(now.authority.chain_pem()).unwrap_or_default();
            if now.authority.is_root() || !revocation::leads_to_root(&roots, &chain) {
                return Err(misfit(&"its own certificate leads to none of these roots"));
            }
            let lists = revocation::merge([now.revocations()?.as_str(), lists_pem]);
            revocation::check(lists.as_bytes(), &roots, &chain, now_ms()).map_err(|wrong| misfit(&wrong))?;
            write(&now.dir.join(AUTHORITIES), roots_pem.as_bytes(), 0o644)?;
            write(&now.dir.join(REVOCATIONS), lists.as_bytes(), 0o644)
        })
    }

    fn hand_out(&self, signed: &Signed, out: &Path) -> Result<Vec<PathBuf>, DirError> {
        make_dir(out)?;
        let lists = self.lists_beside(out)?;
        write_all(
            out,
            &[
                (CERTIFICATE, &signed.certificate_pem, 0o644),
                (AUTHORITY, &signed.authority_pem, 0o644),
                (REVOCATIONS, &lists, 0o644),
            ],
        )
    }

    fn hand_out_authority(&self, chain: &str, out: &Path) -> Result<(Certificate, Vec<PathBuf>), DirError> {
        let signed = Certificate::read_pem(chain.as_bytes()).map_err(PkiError::from)?;
        let uri = signed.uris.first().map(String::as_str).unwrap_or_default();
        let scope = Scope::parse(uri).map_err(PkiError::from)?;
        self.record_issued(&signed.serial, &scope.to_string(), signed.not_after_ms)?;
        make_dir(out)?;
        let lists = self.lists_beside(out)?;
        let mut files = write_all(
            out,
            &[
                (AUTHORITY, chain, 0o644),
                (AUTHORITIES, self.authority.trusted_pem(), 0o644),
                (REVOCATIONS, &lists, 0o644),
            ],
        )?;
        // A new authority has issued nothing yet.
        let record = out.join(ISSUED);
        if !record.exists() {
            write(&record, b"", 0o600)?;
            files.push(record);
        }
        Ok((signed, files))
    }

    /// The lists here together with those in a directory, the newest of each.
    fn lists_beside(&self, out: &Path) -> Result<String, DirError> {
        let own = self.revocations()?;
        let there = out.join(REVOCATIONS);
        if !there.exists() {
            return Ok(own);
        }
        Ok(revocation::merge([own.as_str(), &read(&there)?]))
    }
}

/// Makes a key in a directory, `key.pem` or for an authority `authority.key`, and `request.pem` beside it. Returns the
/// files.
///
/// # Errors
/// [`DirError::Exists`] if there is a key and `force` is not given; or a failed file operation.
pub fn make_request_in(out: &Path, authority: bool, force: bool) -> Result<Vec<PathBuf>, DirError> {
    let key = if authority { AUTHORITY_KEY } else { KEY };
    refuse_existing(out, &[key], force)?;
    let made = KeyRequest::new()?;
    make_dir(out)?;
    write_all(out, &[(key, &made.key_pem, 0o600), ("request.pem", &made.request_pem, 0o644)])
}

fn ders(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().ok()
}

/// The public key of the first certificate of a text.
fn key_of(certificate_pem: &str) -> Result<Vec<u8>, PkiError> {
    use crate::identity::certificate::CertificateProblem;
    use x509_parser::prelude::{FromDer, X509Certificate};
    let der =
        CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|_| CertificateProblem::NotPem)?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| CertificateProblem::Unreadable)?;
    Ok(parsed.public_key().raw.to_vec())
}
