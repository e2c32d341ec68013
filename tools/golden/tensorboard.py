"""TensorBoard's own writer and reader against src/train/tensorboard.c.

    tensorboard.py make          writes tests/golden/train/board.tfevents for tests/unit/train/test_events.c
    tensorboard.py read FILE     prints what TensorBoard reads in an event file, one line per value

Needs the PyPI packages tensorboard (2.21.0) and pillow.
"""
import hashlib
import io
import pathlib
import sys

sys.path.pop(0)                                 # this file has the package's name

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New
from tensorboard.summary.writer.record_writer import RecordWriter

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/train"
# signature, IHDR of a picture 3 wide and 2 tall with its CRC, IEND: what is needed to know its size
PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000030000000208020000001216f14d0000000049454e44ae426082")


def events():
    """The records of one event of each kind that TensorBoard is told of, as kw_tensorboard_event makes them."""
    def value(time, step, **v):
        summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(**v)])
        return event_pb2.Event(wall_time=time, step=step, summary=summary)
    yield event_pb2.Event(wall_time=1.5, file_version="brain.Event:2")
    for tag, v in [("loss/current", 0.125), ("loss/average", 0.1), ("lr/unet", 1e-4), ("lr/textencoder", 5e-5),
                   ("norm/avg_grad_norm", 0.75)]:
        yield value(1700000000.25, 300, tag=tag, simple_value=v)
    yield value(1700000001.0, 300, tag="loss/validation/step_average", simple_value=0.09)
    yield value(1700000001.0, 300, tag="loss/validation/base", simple_value=0.11)
    yield value(1700000002.0, 300, tag="loss/validation/epoch_average", simple_value=0.09)
    yield value(1700000002.0, 300, tag="loss/validation/base", simple_value=0.11)
    yield value(1700000003.0, 0, tag="samples/07", image=summary_pb2.Summary.Image(
        height=2, width=3, colorspace=3, encoded_image_string=PNG))


def make():
    GOLDEN.mkdir(parents=True, exist_ok=True)
    out = io.BytesIO()
    writer = RecordWriter(out)
    for e in events():
        writer.write(e.SerializeToString())
    (GOLDEN / "board.tfevents").write_bytes(out.getvalue())


def read(path):
    reader = PyRecordReader_New(path)
    while True:
        try:
            reader.GetNext()
        except Exception as end:                # the reader's end of file has no common class
            print("end:", type(end).__name__, end)
            return
        e = event_pb2.Event.FromString(reader.record())
        if e.file_version:
            print(f"{e.wall_time:.6f} version {e.file_version}")
        for v in e.summary.value:
            shown = f"{v.simple_value:.9g}"
            if v.HasField("image"):
                digest = hashlib.sha256(v.image.encoded_image_string).hexdigest()[:16]
                shown = f"image {v.image.width}x{v.image.height} sha256 {digest}"
            print(f"{e.wall_time:.6f} step {e.step} {v.tag} {shown}")


if __name__ == "__main__":
    make() if sys.argv[1:] == ["make"] else read(sys.argv[2]) if sys.argv[1:2] == ["read"] else sys.exit(__doc__)
