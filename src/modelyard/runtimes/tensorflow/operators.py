"""Which of TensorFlow's operators a published model may use: those that compute from their inputs.

A SavedModel is a program: TensorFlow has some 1,500 operators, among them such that read and write files, open
connections, run Python, decode images and audio with parsers of their own, or keep state. So this is a list of what is
allowed; what is not on it is refused by its name.
"""

from __future__ import annotations

_NAMES = """
    Abs Acos Acosh Add AddN AddV2 All Any ArgMax ArgMin AsString Asin Asinh Assert Atan Atan2 Atanh AvgPool AvgPool3D
    BatchMatMul BatchMatMulV2 BatchMatMulV3 BatchToSpaceND BiasAdd BroadcastArgs BroadcastTo Bucketize Case Cast
    Ceil ClipByValue Complex ComplexAbs ConcatV2 Const Conv2D Conv3D Cos Cosh Cross Cumprod Cumsum
    CumulativeLogsumexp DataFormatVecPermute DepthToSpace DepthwiseConv2dNative Diag DiagPart Digamma Div DivNoNan
    DynamicPartition DynamicStitch Einsum Elu EmptyTensorList EnsureShape Equal Erf Erfc Erfinv Exp ExpandDims Expm1
    Fill Floor FloorDiv FloorMod FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 Gather GatherNd GatherV2 Greater
    GreaterEqual HashTableV2 Identity IdentityN If Igamma Igammac Imag InTopKV2 InvertPermutation IsFinite IsInf
    IsNan L2Loss LeakyRelu LeftShift Less LessEqual Lgamma LinSpace ListDiff Log Log1p LogSoftmax LogicalAnd
    LogicalNot LogicalOr LookupTableFindV2 LookupTableImportV2 LookupTableSizeV2 LowerBound MatMul MatrixBandPart
    MatrixDiag MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3 MatrixDiagV2 MatrixDiagV3 MatrixInverse
    MatrixSetDiag MatrixSetDiagV2 MatrixSetDiagV3 MatrixSolve MatrixTriangularSolve Max MaxPool MaxPool3D MaxPoolV2
    Maximum Mean Min Minimum MirrorPad Mod Mul MulNoNan Multinomial Ndtri Neg NextAfter NoOp NotEqual OneHot
    OnesLike Pack Pad PadV2 ParallelConcat PartitionedCall Placeholder PlaceholderWithDefault Polygamma Pow
    PreventGradient Prod RaggedGather RaggedRange RaggedTensorToSparse RaggedTensorToTensor RandomStandardNormal
    RandomUniform RandomUniformInt Range Rank ReadVariableOp Real RealDiv Reciprocal Relu Relu6 Reshape
    ResizeBicubic ResizeBilinear ResizeNearestNeighbor Reverse ReverseSequence ReverseV2 RightShift Rint Roll Round
    Rsqrt ScatterNd SegmentMax SegmentMean SegmentMin SegmentProd SegmentSum Select SelectV2 Selu Shape ShapeN
    Sigmoid Sign Sin Sinh Size Slice Snapshot Softmax Softplus Softsign SpaceToBatchND SpaceToDepth SparseReshape
    SparseSegmentMean SparseSegmentSqrtN SparseSegmentSum SparseTensorDenseMatMul SparseToDense Split SplitV Sqrt
    Square SquaredDifference Squeeze StatefulPartitionedCall StatelessCase StatelessIf StatelessRandomGetAlg
    StatelessRandomGetKeyCounter StatelessRandomNormalV2 StatelessRandomUniformV2 StatelessWhile
    StaticRegexFullMatch StaticRegexReplace StopGradient StridedSlice StringJoin StringLength StringLower
    StringSplitV2 StringStrip StringToHashBucketFast StringToNumber StringUpper Sub Substr Sum Tan Tanh
    TensorListConcatV2 TensorListElementShape TensorListFromTensor TensorListGather TensorListGetItem
    TensorListLength TensorListPopBack TensorListPushBack TensorListReserve TensorListResize TensorListSetItem
    TensorListStack TensorScatterAdd TensorScatterUpdate Tile TopKV2 Transpose TruncateDiv TruncateMod
    UnicodeDecodeWithOffsets Unique UniqueV2 UniqueWithCountsV2 Unpack UnravelIndex UnsortedSegmentMax
    UnsortedSegmentMin UnsortedSegmentProd UnsortedSegmentSum UpperBound VarHandleOp VarIsInitializedOp
    VariableShape Where While Xdivy Xlog1py Xlogy ZerosLike Zeta
"""
COMPUTING = frozenset(_NAMES.split())
"""They compute from their inputs, constants, and variables that only the model's own checkpoint fills."""
RESTORING = frozenset({"RestoreV2", "AssignVariableOp"})
"""Allowed beside them while the checkpoint is restored, and only from the version's own folder."""


def is_allowed(operator: str, restoring: bool) -> bool:
    """Whether a model may use the operator."""
    return operator in COMPUTING or (restoring and operator in RESTORING)
