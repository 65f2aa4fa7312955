"""Record which model was trained on which exports, so that an erasure can list the models it concerns."""

from feedback_etl.errors import UsageError
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_records import TRAINED
from feedback_etl.storage.errors import explain_write_errors
from feedback_etl.storage.location import StorageLike, open_storage
from feedback_etl.training.dataset import TrainingDataset


def record_training(folder: StorageLike, *, model: str, dataset: TrainingDataset, key: Key | str | None = None) -> str:
    """Record in the audit log of a folder that a model was trained on exports of it.

    `erase` then lists the models that were trained on exports it changed. If the dataset combines exports of several
    folders, record the training in each of them.

    Args:
        folder: The folder or prefix of an object store with the exports.
        model: Name of the model, such as "ranker:7"; no personal data, since the log is kept.
        dataset: The dataset, from `open_dataset`.
        key: The key that signs the record; required where the log is signed.

    Returns:
        The fingerprint of the dataset, which is recorded too.

    Raises:
        UsageError: The name is empty or longer than 200 characters, or the dataset has no export of this folder.
        KeyMissingError: The audit log is signed, and there is no key.
        ExportFileError: The log cannot be written.

    >>> from feedback_etl import export_feedback
    >>> from feedback_etl.demo.sample import sample_database
    >>> from feedback_etl.privacy.keys import generate_key
    >>> from feedback_etl.training import open_dataset
    >>> key = generate_key()
    >>> with sample_database() as url:
    ...     _ = export_feedback(url, days_back=90, key=key, output_dir="recorded")
    >>> dataset = open_dataset("recorded")
    >>> record_training("recorded", model="ranker:7", dataset=dataset, key=key) == dataset.fingerprint
    True
    """
    if not isinstance(model, str) or not model.strip() or len(model) > 200 or not model.isprintable():
        raise UsageError('`model` must be the name of a model, such as "ranker:7", of at most 200 characters.')
    storage = open_storage(folder)
    stems = [export.manifest.stem for export in dataset.exports if str(export.storage) == str(storage)]
    if not stems:
        raise UsageError(
            f"The dataset contains no export of {storage}: record the training in the folders it was read from."
        )
    signers = Key.parse_all(key or ())
    signer, log = (signers[0] if signers else None), AuditLog(storage)
    log.require_signer(signer)
    with explain_write_errors(storage), log.lock() as opened:
        opened.append(TRAINED, signer, model=model, fingerprint=dataset.fingerprint, trained_on=stems)
    return dataset.fingerprint
