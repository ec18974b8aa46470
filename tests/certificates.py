"""Self-made certificates that C2PA's rules accept: one of an authority, and one of it for signing."""

from __future__ import annotations

import datetime
import io
import json
from dataclasses import dataclass

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["SelfMade", "credentials_of", "taken_by_a_camera"]

_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip
_SETTINGS = {"verify": {"remote_manifest_fetch": False}, "builder": {"thumbnail": {"enabled": False}}}


@dataclass(frozen=True)
class SelfMade:
    """A private key and its chain of certificates, as PEM."""

    key: bytes
    chain: bytes

    @classmethod
    def make(cls) -> SelfMade:
        root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        root = _certificate("authority", root_key, "authority", root_key)
        leaf = _certificate("signer", key, "authority", root_key)
        pem = serialization.Encoding.PEM
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return cls(private, leaf.public_bytes(pem) + root.public_bytes(pem))


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, issuer_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    now, is_root = datetime.datetime.now(datetime.UTC), name == issuer
    allowed = {"key_cert_sign", "crl_sign"} if is_root else {"digital_signature"}
    usage = x509.KeyUsage(**{usage: usage in allowed for usage in _USAGES})
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if not is_root:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _name(common: str) -> x509.Name:
    fields = ((NameOID.ORGANIZATION_NAME, "Tests"), (NameOID.COMMON_NAME, common))
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in fields])


def taken_by_a_camera(jpeg: bytes, camera: SelfMade) -> bytes:
    """A JPEG with the manifest of a camera."""
    action = {
        "action": "c2pa.created",
        "digitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture",
    }
    manifest = {
        "claim_generator_info": [{"name": "camera", "version": "1"}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }
    info = c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, camera.chain, camera.key, None)
    target = io.BytesIO()
    with c2pa.Context.from_dict(_SETTINGS) as context, c2pa.Signer.from_info(info) as signer:
        c2pa.Builder(manifest, context=context).sign(signer, "image/jpeg", io.BytesIO(jpeg), target)
    return target.getvalue()


def credentials_of(data: bytes, content_type: str) -> tuple[str | None, dict[str, object]]:
    """Whether the credentials of a file hold (`Valid`: the authority is not known, all else is right), and its active
    manifest."""
    with c2pa.Context.from_dict(_SETTINGS) as context:
        reader = c2pa.Reader(content_type, io.BytesIO(data), context=context)
        said = json.loads(reader.json())
        return reader.get_validation_state(), said["manifests"][said["active_manifest"]]
