"""Image classifiers for images of the size of CIFAR, one family per file."""

from orthogan.models.classifiers.alexnet import AlexNet
from orthogan.models.classifiers.base import Classifier
from orthogan.models.classifiers.cnn import CNN
from orthogan.models.classifiers.densenet import DenseNet
from orthogan.models.classifiers.mlp import MLP
from orthogan.models.classifiers.resnet import ResNet, SmallResNet
from orthogan.models.classifiers.vgg import VGG
from orthogan.models.classifiers.wide_resnet import WideResNet

__all__ = ["CNN", "MLP", "VGG", "AlexNet", "Classifier", "DenseNet", "ResNet", "SmallResNet", "WideResNet"]
