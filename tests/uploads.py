"""Upload as a bulk run does, but without a journal."""

from functools import partial

from springest_async import CertificateUpload, Receipt, Springest, UploadListener, UploadStep
from springest_async.source_file import SourceFile
from springest_async.upload import Upload

__all__ = ["upload_in_bulk"]


def _ignore(_: UploadStep) -> None:
    """Listen to nothing."""


async def upload_in_bulk(
    springest: Springest,
    upload: CertificateUpload,
    *,
    source: SourceFile | None = None,
    bulk: bool = True,
    listener: UploadListener = _ignore,
) -> Receipt:
    uploader = springest._uploader()
    with springest._call() as call:
        return await Upload(uploader, upload, partial(call.follow, listener), bulk, source).run()
