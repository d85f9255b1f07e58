"""Features of photos by the shipped starter's network, made in idle time and kept by digest.

They say how alike two photos are. Neither torch nor the model that serves is needed for that, and nobody waits for
them: whoever chooses photos does so by other reasons until they are there.
"""

import hashlib
import io
import logging
import os
import threading
import time
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np

import detectors
from detectors.errors import DetectorError
from detectors.files import as_owner, write_safely
from detectors.models import MODEL_FILE
from detectors.models.hf_config import ProcessorConfig
from detectors.photos.image import decode
from detectors.preprocess import from_processor_config
from miner.feedback.selection import Features

log = logging.getLogger(__name__)

SHIPPED = Path(detectors.__file__).parent / "starter"
RESIDUAL = 3  # of the residual sums, from the end
CACHE = "features.npz"
NICE = 19  # the lowest priority
AT_ONCE = 1000  # photos of the cache, so that nobody waits for long meanwhile
BATCH = 8  # photos, between two times that they are handed on
SAVE_SECONDS = 30.0  # between two writes of the cache: what a kill may cost


class Extractor(Protocol):
    """What makes features of a photo."""

    key: str  # whoever has another one makes other features

    def __call__(self, photo: bytes) -> Features:
        """Return a photo's features.

        Raises:
            DetectorError: it can't be decoded.
        """
        ...


class StarterFeatures:
    """The means over the picture of what flows through the middle of a model folder's graph, on one thread.

    Not what the last layer is given: training has left nothing in there but the class, and photos of different streets
    are as near to each other as two frames of one. Measured on the development photos with a part of each cut off, it
    tells 97 % again, and the third-last residual sum all of them, in 192 numbers in place of 1,280.
    """

    def __init__(self, folder: Path = SHIPPED) -> None:
        """Load the graph.

        Raises:
            DetectorError: its preprocessing can't be read.
            ValueError: it has no such sums.
        """
        import onnx
        import onnxruntime

        graph = (folder / MODEL_FILE).read_bytes()
        self.key = hashlib.sha256(graph).hexdigest()
        self._preprocess = from_processor_config(ProcessorConfig.read(folder))
        model = onnx.load_model_from_string(graph)
        weights = {tensor.name for tensor in model.graph.initializer}
        sums = [node for node in model.graph.node if node.op_type == "Add" and not weights & set(node.input)]
        if len(sums) < RESIDUAL:
            raise ValueError(f"{folder}: its graph has no {RESIDUAL} residual sums")
        self._output = sums[-RESIDUAL].output[0]
        del model.graph.output[:]
        model.graph.output.append(onnx.helper.make_tensor_value_info(self._output, onnx.TensorProto.FLOAT, None))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def __call__(self, photo: bytes) -> Features:
        """Return a photo's features."""
        flow = self._session.run([self._output], {self._input: self._preprocess(decode(photo))})[0]
        vector: Features = np.asarray(flow, dtype=np.float32).mean(axis=(2, 3)).reshape(-1)
        return vector


class KeptFeatures:
    """A file of features by digest, which costs time alone if it is lost."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key

    def read(self) -> dict[str, Features]:
        """Return what is there; nothing where it is damaged, or of another network."""
        with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            data = io.BytesIO(self.path.read_bytes())
            with np.load(data, allow_pickle=False) as file:
                if str(file["key"]) == self.key:
                    rows = file["features"].astype(np.float32)
                    return dict(zip(file["digests"].tolist(), rows, strict=True))
        return {}

    def write(self, features: Mapping[str, Features]) -> None:
        """Write all of them.

        Raises:
            OSError: the disk does not take them; what was there stays.
        """
        buffer = io.BytesIO()
        rows = np.stack(list(features.values())).astype(np.float16)  # half the disk, and a thousandth of a distance
        np.savez(buffer, key=np.array(self.key), digests=np.array(list(features)), features=rows)
        with as_owner(self.path.parent):
            write_safely(self.path, buffer.getvalue(), mode=0o600)


class FeatureThread:
    """Makes the features of whatever is wanted, at the lowest priority, and hands them on."""

    def __init__(
        self,
        folder: Path,
        wanted: Callable[[], Mapping[str, Path]],
        found: Callable[[Mapping[str, Features]], None],
        make: Callable[[], Extractor] = StarterFeatures,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            folder: where the cache goes.
            wanted: returns the photos, by digest, the most urgent first.
            found: takes features in, from another thread.
            make: loads the network.
        """
        self._folder, self._wanted, self._found, self._make = folder, wanted, found, make
        self._wake, self._ending = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="features", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def look(self) -> None:
        """Look again at what is wanted."""
        self._wake.set()

    def close(self) -> None:
        """Write what there is, and wait for the thread's end.

        However long a busy machine takes: a thread that is still in a library's compiled code when the interpreter ends
        aborts the process.
        """
        self._ending = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            extract = self._make()  # at the usual priority, as a close waits for it
        except (DetectorError, ImportError, OSError, ValueError) as error:
            log.warning("no photo is chosen for being unlike the others: the starter can't be loaded: %s", error)
            return
        with suppress(OSError):  # of this thread alone, as Linux has it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        kept = KeptFeatures(self._folder / CACHE, extract.key)
        features, failed = kept.read(), set[str]()
        known = list(features.items())
        for start in range(0, len(known), AT_ONCE):
            self._found(dict(known[start : start + AT_ONCE]))
        written, saved = len(features), time.monotonic()
        while not self._ending:
            wanted = self._wanted()
            missing = [digest for digest in wanted if digest not in features and digest not in failed][:BATCH]
            made: dict[str, Features] = {}
            for digest in missing:
                if self._ending:
                    break
                try:
                    made[digest] = extract(wanted[digest].read_bytes())
                except (DetectorError, OSError):  # no photo, or gone
                    failed.add(digest)
            features |= made
            if made:
                self._found(made)
            if len(features) > written and (not missing or self._ending or time.monotonic() - saved > SAVE_SECONDS):
                features = {digest: vector for digest, vector in features.items() if digest in wanted}
                self._save(kept, features)
                written, saved = len(features), time.monotonic()
            if not missing:
                self._wake.wait()
                self._wake.clear()

    def _save(self, kept: KeptFeatures, features: Mapping[str, Features]) -> None:
        if not features:
            return
        try:
            kept.write(features)
        except OSError as error:
            log.warning("%s can't be written, so features are made again next time: %s", kept.path, error)
