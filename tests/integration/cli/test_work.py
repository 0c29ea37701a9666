"""``brokkr work`` against a real broker; the test plays the agent."""

import asyncio
import json
import signal
from uuid import UUID

import pytest
import yaml

from brokkr.client import BrokerClient
from brokkr.wire.bodies import ClaimBody, ClaimSome, CompleteWork, RegisterAgent, ReportProgress
from cli_conftest import CommandLine
from support.broker import RunningBroker
