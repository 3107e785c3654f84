"""The names of PyTorch that tensorgrad has: operations, nn.functional, layers, optimisers, as the
project set out to have them; `benchmarks.coverage` looks for each.
"""

import dis
import re
from collections.abc import Callable, Iterator
from itertools import product
from types import CodeType, FunctionType
from typing import Any


def expand(text: str) -> list[str]:
    """Words; a word with braces stands for one of each choice: conv{1,2}d is conv1d and conv2d."""
    found = []
    for word in re.sub(r"\s+(?=[^{}]*})", "", text).split():
        parts = [part.split(",") for part in re.split(r"[{}]", word)]
        found += ["".join(choice) for choice in product(*parts)]
    return found


CREATION = expand("""
    tensor {zeros,ones,full,empty,rand,randn,randint}{,_like} arange linspace eye randperm
    {tril,triu}_indices from_numpy nn.functional.one_hot
""")
OPERATIONS = expand("""
    abs acos acosh add addbmm addcdiv addcmul addmm addmv addr all allclose amax amin any argmax
    argmin argsort asin asinh atan atan2 atanh baddbmm bincount bmm broadcast_to cat ceil chunk
    clamp clamp_{max,min} clone contiguous cos cosh cum{max,min,prod,sum} diag diag_embed diagonal
    diff dist div dot einsum eq erf erfc exp exp2 expand expand_as expm1 flatten flip floor fmax
    fmin fmod frac gather ge gt hstack hypot index_{add,copy,fill,put,select} inner isfinite isinf
    isnan kron le lerp lgamma linalg.{norm,vector_norm,matrix_norm,inv,det,solve,cholesky,slogdet}
    log log10 log1p log2 log_softmax logaddexp logcumsumexp logical_{and,or,not,xor} logit logsumexp
    lt masked_{fill,scatter,select} matmul max maximum mean median meshgrid min minimum mm movedim
    mul multinomial mv nan_to_num nanmean nansum narrow ne neg nonzero norm outer permute pow prod
    quantile ravel reciprocal remainder repeat repeat_interleave reshape reshape_as roll rot90 round
    rsqrt rsub scatter scatter_add searchsorted select select_scatter sigmoid sign sin sinc sinh
    slice_scatter softmax sort split split_with_sizes sqrt square squeeze stack std std_mean sub sum
    swapaxes t take take_along_dim tan tanh tensor_split tensordot tile topk trace transpose tril
    triu true_divide trunc unbind unflatten unfold unique unsqueeze var var_mean vdot view view_as
    vstack where xlogy
    bernoulli isclose floor_divide bitwise_{and,or,xor,not}
""")
METHODS = expand("""
    T mT float double half bfloat16 long int bool to type item tolist numel nelement size dim ndim
    stride is_contiguous data_ptr {normal,uniform,zero,fill,bernoulli,copy,masked_fill}_
""")
DUNDERS = expand("""
    __{,r,i}{add,sub,mul,truediv,floordiv,mod,pow,and,or,xor}__ __{,r}matmul__
    __{neg,pos,abs,invert,lt,le,gt,ge,eq,ne,getitem,setitem,len,iter,contains,bool,int,float}__
    __{complex,index,format,repr,array,dlpack,dlpack_device,deepcopy,reversed}__
""")
FUNCTIONAL = expand("""
    adaptive_{avg,max}_pool{1,2}d {avg,max}_pool{1,2}d batch_norm bilinear
    binary_cross_entropy{,_with_logits} celu conv{,_transpose}{1,2}d cosine_embedding_loss
    cosine_similarity cross_entropy dropout elu embedding gelu glu group_norm hardshrink hardsigmoid
    hardswish hardtanh hinge_embedding_loss huber_loss instance_norm interpolate kl_div l1_loss
    layer_norm leaky_relu linear logsigmoid margin_ranking_loss mish mse_loss nll_loss normalize pad
    pairwise_distance pixel_{shuffle,unshuffle} poisson_nll_loss prelu relu relu6 rms_norm
    scaled_dot_product_attention selu silu smooth_l1_loss soft_margin_loss softmin softplus
    softshrink softsign tanhshrink threshold triplet_margin_loss unfold
""")
LAYERS = expand("""
    Module Parameter Sequential ModuleList ModuleDict Linear Embedding LayerNorm RMSNorm BatchNorm1d
    Dropout Conv1d Conv2d Flatten Identity
    CELU ELU GELU GLU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid LogSoftmax Mish
    PReLU ReLU ReLU6 SELU Sigmoid SiLU Softmax Softmin Softplus Softshrink Softsign Tanh Tanhshrink
    Threshold
    BCELoss BCEWithLogitsLoss CosineEmbeddingLoss CrossEntropyLoss HingeEmbeddingLoss HuberLoss
    KLDivLoss L1Loss MarginRankingLoss MSELoss NLLLoss PoissonNLLLoss SmoothL1Loss SoftMarginLoss
    TripletMarginLoss
    init.{xavier,kaiming}_{uniform,normal}_ init.{uniform,normal,trunc_normal,orthogonal}_
    init.{zeros,ones,constant}_ init.calculate_gain utils.clip_grad_{norm,value}_
""")
MODULE = expand("""
    {,named_}{parameters,buffers,children,modules} register_{parameter,buffer,module} apply train
    eval to state_dict load_state_dict register_forward_{pre_,}hook
    register_full_backward_{pre_,}hook requires_grad_ zero_grad extra_repr {float,double,half}
    {cpu,cuda} get_{parameter,buffer,submodule}
""")
OPTIMISERS = expand("""
    SGD Adam AdamW RMSprop Adagrad Muon Optimizer
    lr_scheduler.{Lambda,Multiplicative,Step,MultiStep,Constant,Linear,Exponential,Polynomial}LR
    lr_scheduler.{CosineAnnealing,OneCycle,Sequential}LR lr_scheduler.CosineAnnealingWarmRestarts
    lr_scheduler.{ReduceLROnPlateau,ChainedScheduler,LRScheduler}
""")
OURS = expand("""
    optim.Lion optim.lr_scheduler.WarmupCosineLR nn.summary
""")
"""Names that PyTorch has not."""

FORMS = {
    "creation": ("", CREATION),
    "operations": ("", OPERATIONS),
    "methods": ("Tensor.", METHODS),
    "operators": ("Tensor.", DUNDERS),
    "nn.functional": ("nn.functional.", FUNCTIONAL),
    "layers": ("nn.", LAYERS),
    "modules": ("nn.Module.", MODULE),
    "optimisers": ("optim.", OPTIMISERS),
    "ours": ("", OURS),
}
"""Group -> what stands before its names in either framework, and the names."""


# -- what a function calls -------------------------------------------------------------------------

OPERATORS = {
    "+": "add", "-": "sub", "*": "mul", "/": "div", "//": "floor_divide", "%": "remainder",
    "**": "pow", "@": "matmul", "&": "bitwise_and", "|": "bitwise_or", "^": "bitwise_xor",
    "<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne",
}  # fmt: skip
UNARY = {"UNARY_NEGATIVE": "neg", "UNARY_INVERT": "bitwise_not"}


def called(function: Callable[..., Any]) -> set[str]:
    """The names of attributes, functions and operators in a function's code, and in the code of the
    functions near it that it calls.
    """
    found: set[str] = set()
    waiting, seen = [function], set()
    while waiting:
        one = waiting.pop()
        if not isinstance(one, FunctionType) or one in seen:
            continue
        seen.add(one)
        mentioned = {name for code in codes(one.__code__) for name in words(code)}
        found |= mentioned
        waiting += [cell.cell_contents for cell in one.__closure__ or ()]
        near: list[Any] = [one.__globals__.get(name) for name in mentioned]
        waiting += [f for f in near if getattr(f, "__module__", None) == one.__module__]
    return found


def codes(code: CodeType) -> Iterator[CodeType]:
    """A code and those inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def words(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for step in dis.get_instructions(code):
        sign = re.sub(r"bool\((.*)\)", r"\1", step.argrepr)
        if step.opname in ("BINARY_OP", "COMPARE_OP"):  # += is a BINARY_OP, too
            yield OPERATORS.get(sign, OPERATORS.get(sign.removesuffix("="), sign))
        elif step.opname in UNARY:
            yield UNARY[step.opname]
