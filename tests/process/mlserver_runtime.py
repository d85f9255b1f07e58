"""Runs in MLServer's environment, which has nothing of ours: any ONNX graph, behind MLServer's own protocol code."""

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxRuntime(MLModel):
    """Loads `parameters.uri`."""

    async def load(self) -> bool:
        self._session = onnxruntime.InferenceSession(self.settings.parameters.uri, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        picture = NumpyCodec.decode_input(payload.inputs[0])
        scores = self._session.run(None, {self._session.get_inputs()[0].name: picture})[0]
        output = NumpyCodec.encode_output("logits", scores)
        return InferenceResponse(model_name=self.name, outputs=[output])
